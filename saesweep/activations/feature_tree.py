"""Parents and children among synthetic features, as SAELens' `generate_hierarchy` builds them: breadth first."""

# Shape suffix legend: B = rows, F = true features

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from torch import Tensor

from saesweep.specs.synthetic import HierarchySpec


class Family(NamedTuple):
    """One parent and its children."""

    parent: int
    children: tuple[int, ...]
    depth: int
    """Of the parent; roots have 0."""
    is_exclusive: bool
    """At most one child is active at a time."""


class FeatureTree:
    """Which feature needs which other one.

    Args:
        spec: Shape of the trees.
        n_features: Features there are; trees end where they run out.
        seed: Draws branching factors and exclusive families.
    """

    def __init__(self, spec: HierarchySpec, n_features: int, seed: int) -> None:
        self._spec = spec
        rng = random.Random(seed)
        unused = iter(range(n_features))
        parents = [(root, 0) for _, root in zip(range(spec.total_root_nodes), unused, strict=False)]
        found: list[tuple[int, tuple[int, ...], int]] = []
        for parent, depth in parents:  # grows while it is read: breadth first
            if depth >= spec.max_depth:
                break
            factor = spec.branching_factor
            branching = factor if isinstance(factor, int) else rng.randint(*factor)
            children = tuple(child for _, child in zip(range(branching), unused, strict=False))
            if children:
                found.append((parent, children, depth))
                parents += [(child, depth + 1) for child in children]
        eligible = [parent for parent, children, _ in found if len(children) > 1]
        exclusive = set(rng.sample(eligible, round(spec.mutually_exclusive_portion * len(eligible))))
        self.families = [Family(parent, children, depth, parent in exclusive) for parent, children, depth in found]

    def compensated(self, probabilities_F: Tensor) -> Tensor:
        """Return the probabilities to draw with, so that features fire about as often as `probabilities_F` says.

        A child's is divided by its parent's, and in an exclusive family multiplied by one plus the expected number of
        rivals; at most 1. As in SAELens.
        """
        if not self._spec.compensate_probabilities:
            return probabilities_F
        corrected_F = probabilities_F.clone()
        for family in self.families:
            children = list(family.children)
            of_parent = probabilities_F[family.parent]
            corrected_F[children] = probabilities_F[children] / of_parent
            if family.is_exclusive:
                rivals = probabilities_F[children].sum() - probabilities_F[children]
                corrected_F[children] *= 1 + rivals / of_parent
        return corrected_F.clamp_max(1.0)

    def apply_(self, acts_BF: Tensor, means_F: Tensor, generator: torch.Generator) -> Tensor:
        """Silence children of silent parents and all but one child of exclusive families, in place, roots first."""
        for family in self.families:
            children = list(family.children)
            parent_B1 = acts_BF[:, family.parent, None]
            group_BC = acts_BF[:, children]
            if self._spec.scale_children_by_parent:
                group_BC = group_BC * (parent_B1 / means_F[family.parent])
            else:
                group_BC = group_BC * (parent_B1 > 0)
            if family.is_exclusive:
                # A uniform draw among the active ones: the largest of independent keys.
                keys_BC = torch.rand(group_BC.shape, generator=generator).masked_fill(group_BC == 0, -1)
                chosen_B1 = keys_BC.argmax(1, keepdim=True)
                group_BC = torch.zeros_like(group_BC).scatter(1, chosen_B1, group_BC.gather(1, chosen_B1))
            acts_BF[:, children] = group_BC
        return acts_BF
