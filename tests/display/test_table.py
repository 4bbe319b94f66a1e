"""The leaderboard table: what it shows, and what gives way where there is no room."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from saesweep.display import leaderboard_table, render_text
from saesweep.display.columns import Column, fit_columns, leaderboard_columns, table_width
from saesweep.display.table import caption_lines, visible_rows
from saesweep.events import ReferenceRow

from .runs import ROWS, STARTED, row


def columns_of(rows, **options):
    return {column.name: column for column in leaderboard_columns(rows, **options)}


def test_render_text_shows_every_cell_of_every_row():
    text = render_text(ROWS)
    assert "…" not in text
    for column in leaderboard_columns(ROWS):
        for line in [*column.heading.splitlines(), *column.cells]:
            assert line in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_render_text_aligns_its_columns():
    lines = render_text(ROWS).splitlines()
    first = next(line for line in lines if "*1" in line)
    second = next(line for line in lines if line.lstrip().startswith("3"))
    assert first.index("31.9") == second.index("31.9")


def test_empty_leaderboard_renders():
    assert "architecture" in render_text(())


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_cells_are_never_cut_and_the_table_fits(width):
    table, left_out = leaderboard_table(ROWS, width=width)
    sink = io.StringIO()
    console = Console(file=sink, width=width, no_color=True)
    console.print(table)
    text = sink.getvalue()
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert ("joined at" in left_out) == (width < 116)
    for column in leaderboard_columns(ROWS):
        if column.name not in left_out:
            assert all(cell in text for cell in column.cells)


def test_table_width_is_what_rich_measures():
    columns = leaderboard_columns(ROWS)
    table, _ = leaderboard_table(ROWS)
    console = Console(file=io.StringIO(), width=500)
    assert console.measure(table).maximum == table_width(columns)


def test_the_least_important_columns_go_first():
    kept, left_out = fit_columns(leaderboard_columns(ROWS), 80)
    assert left_out == ["joined at", "measured at", "tokens", "dead %"]
    assert [c.name for c in kept][:2] == ["rank", "trial"]
    assert next(c for c in kept if c.name == "architecture").heading == "arch."
    assert next(c for c in leaderboard_columns(ROWS) if c.name == "architecture").heading == "architecture"
    kept, _ = fit_columns(leaderboard_columns(ROWS), 1)
    assert [c.name for c in kept] == ["trial"]


def test_a_column_that_fits_in_the_room_of_a_wider_one_comes_back():
    columns = [
        Column(name="a", heading="a", cells=("x" * 20,), keep=90),
        Column(name="narrow", heading="n", cells=("1",), keep=10),
        Column(name="wide", heading="w", cells=("y" * 30,), keep=20),
        Column(name="gone", heading="g", cells=("z" * 15,), keep=5),
    ]
    kept, left_out = fit_columns(columns, 30)
    assert [column.name for column in kept] == ["a", "narrow"]
    assert left_out == ["gone", "wide"]


def test_a_learning_rate_that_is_the_same_for_all_is_left_out():
    fixed = [row(i, params={"sae.k": 8 * (i + 1)}) for i in range(2)]
    assert "lr" not in columns_of(fixed)
    assert "lr" in columns_of([fixed[0], row(1, params={}, lr=1e-2)])
    assert "lr" in columns_of([row(0), row(1)])  # it was searched


def test_the_target_of_a_trial_is_named_and_right_aligned():
    rows = [row(i, target_l0=l0, params={"target_l0": l0, "sae.name": "a" * i}) for i, l0 in enumerate((8.0, 16.0))]
    columns = columns_of(rows)
    assert (columns["target L0"].cells, columns["target L0"].align) == (("8", "16"), "right")
    assert columns["name"].align == "left"


def test_front_baseline_and_infeasible_are_marked():
    columns = columns_of([row(0, on_front=True), row(1, is_baseline=True), row(2, feasible=False)])
    assert columns["rank"].cells == ("◆ 1", "2", "3")
    assert columns["trial"].cells == ("0", "*1", "2")
    assert columns["state"].cells == ("complete", "complete", "infeasible")


def test_dead_window_is_in_the_heading_when_shared_and_in_the_cells_when_not():
    shared = columns_of([row(0), row(1)])["dead %"]
    assert shared.heading == "dead %\nin 500k"
    assert shared.cells == ("3.1", "3.1")
    mixed = columns_of([row(0), row(1, dead_window_tokens=20_000), row(2, metrics={})])["dead %"]
    assert mixed.cells == ("3.1 (500k)", "3.1 (20k)", "-")


def test_metrics_follow_the_order_asked_for_and_unknown_names_stay():
    rows = [row(0, metrics={"l0": 31.9, "my_metric": 2.0, "kl_div": 0.5})]
    names = [c.name for c in leaderboard_columns(rows, metrics=("kl_div", "l0", "my_metric"))]
    assert [name for name in names if name in ("KL", "L0", "my_metric")] == ["KL", "L0", "my_metric"]
    assert "expl. var" not in names


def test_nan_and_missing_metrics_show_as_a_dash():
    columns = columns_of(
        [
            row(0, metrics={"l0": float("nan")}),
            row(1, metrics={"l0": 31.9}),
            row(2, metrics={"l0": float("inf")}),
            row(3, metrics={}),
        ]
    )
    assert columns["L0"].cells == ("-", "31.9", "-", "-")


def test_a_column_without_a_value_is_left_out_at_any_width():
    rows = [row(i, status="training", rank=None, metrics={}, measured_at_tokens=None) for i in range(2)]
    names = set(columns_of(rows))
    assert names.isdisjoint({"rank", "L0", "ΔCE", "expl. var", "dead %"})
    assert {"trial", "sparsity", "lr", "state"} <= names
    assert "hook" not in columns_of([row(0, hook=""), row(1, hook="")])


@pytest.mark.parametrize("width", [80, 120, 200])
def test_searched_parameters_and_the_goals_outlive_other_metrics(width):
    rows = [
        row(
            i,
            architecture=name,
            sparsity="λ 0.126 tanh",
            on_front=True,
            params={"sae.architecture": name, "lr": lr, "sae.d_sae": 1024 * (i + 1)},
        )
        for i, (name, lr) in enumerate([("batchtopk", 1e-4), ("jumprelu", 7.5e-5)])
    ]
    kept, left_out = fit_columns(leaderboard_columns(rows, metrics=STARTED.metrics, best=0), width)
    names = [column.name for column in kept]
    assert {"trial", "sparsity", "lr", "d_sae", "L0", "ΔCE", "state"} <= set(names)
    assert table_width(kept) <= width
    if width == 80:
        assert {"tokens", "dead %"} <= set(left_out)


def test_the_best_is_marked_among_several_of_rank_one():
    rows = [row(i, rank=1, on_front=True) for i in range(3)]
    columns = {column.name: column for column in leaderboard_columns(rows, best=1)}
    assert columns["rank"].cells == ("◆ 1", "★◆ 1", "◆ 1")
    text = render_text(rows, best=1)
    assert "★ best   ◆ on the Pareto front" in text
    assert "★" not in render_text(rows)


def test_a_reference_of_the_same_number_is_not_the_best():
    reference = ReferenceRow(**{**vars(row(0)), "status": "reference", "source": "a", "d_sae": 8})
    columns = {column.name: column for column in leaderboard_columns([reference, row(0)], best=0)}
    assert columns["rank"].cells == ("1", "★ 1")


def test_parameters_that_differ_get_a_column():
    rows = [
        row(0, params={"lr": 1e-4, "lr_scheduler_name": "constant", "sae.d_sae": 1024}),
        row(1, params={"lr": 1e-4, "lr_scheduler_name": "cosineannealing", "sae.d_sae": 1024}),
        row(2, params={"lr": 1e-4}),
    ]
    columns = columns_of(rows)
    assert columns["lr_scheduler_name"].cells == ("constant", "cosineannealing", "-")
    assert columns["d_sae"].cells == ("1024", "1024", "-")
    assert columns["lr"].cells == ("0.0003",) * 3  # once, from the row
    assert "d_sae" not in columns_of(rows[:2])


def test_the_hook_is_shown_where_it_differs():
    assert "hook" not in columns_of(ROWS)
    assert columns_of([row(0), row(1, hook="model.layers.3")])["hook"].cells == ("model.layers.2", "model.layers.3")


def test_training_trials_have_a_bar_where_bars_are_wanted():
    rows = [row(0, status="training", tokens=500_000)]
    assert columns_of(rows)["state"].cells == ("training 50%",)
    assert columns_of(rows, bars=True)["state"].cells == ("━━━─── 50%",)


def test_markup_in_values_is_text():
    table, _ = leaderboard_table([row(0, sparsity="[bold]k[/bold]")])
    console = Console(file=io.StringIO(), width=300)
    console.print(table)
    assert "[bold]k[/bold]" in console.file.getvalue()


def test_visible_rows_keep_the_leader_and_the_training_ones():
    rows = [row(i) for i in range(30)] + [row(i, status="training", rank=None) for i in range(30, 33)]
    chosen = visible_rows(rows, 8)
    assert [r.number for r in chosen] == [0, 1, 2, 3, 4, 30, 31, 32]
    assert visible_rows(rows, 100) == rows
    assert [r.number for r in visible_rows(rows, 2)] == [0, 30]
    assert [r.number for r in visible_rows(rows, 0)] == [0]


def test_caption_says_what_is_hidden_and_n_per_architecture():
    assert caption_lines(ROWS, hidden=12, left_out=["lr"]) == [
        "… 12 more",
        "columns left out on this width: lr",
        "◆ on the Pareto front   * baseline",
        "trials: batchtopk 3 (1 complete, 1 training, 1 failed) · jumprelu 1 (1 complete) · topk 1 (1 pruned)",
    ]
    assert caption_lines(()) == []


def test_ranks_that_seeds_could_swap_show_their_bracket():
    rows = [row(0, tied_from_rank=1, tied_to_rank=2), row(1, tied_from_rank=1, tied_to_rank=2), row(2)]
    rows.append(row(3, tied_from_rank=4, tied_to_rank=4))
    assert columns_of(rows)["rank"].cells == ("1 (1-2)", "2 (1-2)", "3", "4")
