"""What a person would see wrong with a page, looked for in the browser."""

from tests.report.browsing import Tab

_SCRIPT = """
(() => {
  const found = [];
  const rect = (e) => e.getBoundingClientRect();
  const meet = (a, b, slack = 1) => a.left < b.right - slack && b.left < a.right - slack && a.top < b.bottom - slack && b.top < a.bottom - slack;
  const name = (e) => (e.textContent || e.className).trim().slice(0, 40);
  if (document.documentElement.scrollWidth > innerWidth) found.push(`the page is ${document.documentElement.scrollWidth} px wide`);

  if (innerWidth >= 1200) for (const box of document.querySelectorAll(".scroll")) if (box.scrollWidth > box.clientWidth) found.push(`a table of ${box.closest("section").id} is wider than the page`);

  const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const colour = (text) => { const n = (text.match(/[\\d.]+/g) || []).map(Number); return n.length ? [n[0], n[1], n[2], n.length > 3 ? n[3] : 1] : null; };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  function behind(e) {
    const layers = [];
    for (let at = e; at; at = at.parentElement) { const c = colour(getComputedStyle(at).backgroundColor); if (c && c[3] > 0) { layers.push(c); if (c[3] === 1) break; } }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  }
  const contrast = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const paper = behind(document.body);
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("svg, script, style") || !e.getClientRects().length) continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const ratio = contrast(over(colour(getComputedStyle(e).color), behind(e)), behind(e));
    if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(2)} of ${e.tagName} "${name(e)}"`);
  }
  for (const plot of document.querySelectorAll(".plot")) {
    const what = plot.dataset.name, box = rect(plot);
    if (!plot.classList.contains("js-plotly-plot")) { found.push(`${what}: not drawn`); continue; }
    for (const axis of ["x", "y"]) {
      const drawn = plot.layout[axis + "axis"];
      if (!drawn || drawn.visible === false) continue;
      const ticks = [...plot.querySelectorAll(`.${axis}tick text`)].filter((t) => t.textContent.trim());
      const one = drawn.type === "category" || what === "slots";
      if (ticks.length < (one ? 1 : 2)) found.push(`${what}: ${ticks.length} tick labels on ${axis}`);
      ticks.forEach((t, i) => ticks.slice(i + 1).forEach((u) => { if (meet(rect(t), rect(u))) found.push(`${what}: tick labels ${name(t)} and ${name(u)} overlap`); }));
    }
    const area = plot.querySelector(".xy .plot, .bglayer .bg, .plotbg, .cartesianlayer .plot");
    const legend = plot.querySelector(".legend"), bar = plot.querySelector(".modebar");
    if (legend && bar && meet(rect(legend), rect(bar))) found.push(`${what}: the legend is below the buttons`);
    if (legend) for (const entry of legend.querySelectorAll("text")) for (const label of plot.querySelectorAll(".g-xtitle text, .xtick text")) if (meet(rect(entry), rect(label))) found.push(`${what}: ${name(entry)} of the legend lies on ${name(label)}`);
    for (const title of plot.querySelectorAll(".g-xtitle text, .g-ytitle text")) for (const tick of plot.querySelectorAll(".xtick text, .ytick text")) if (meet(rect(title), rect(tick))) found.push(`${what}: ${name(title)} lies on tick ${name(tick)}`);
    for (const text of plot.querySelectorAll("svg text")) {
      const r = rect(text);
      if (!r.width || text.closest(".hoverlayer")) continue;
      if (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1) found.push(`${what}: "${name(text)}" is clipped`);
      if (text.classList.contains("bartext") || text.closest(".bartext")) continue;
      const fill = colour(getComputedStyle(text).fill);
      if (getComputedStyle(text).opacity === "1" && contrast(fill, paper) < 4.5) found.push(`${what}: contrast ${contrast(fill, paper).toFixed(2)} of "${name(text)}"`);
    }
  }
  return [...new Set(found)];
})()
"""


def faults_of(tab: Tab) -> list[str]:
    """Return clipped or overlapping text, axes without labels, poor contrast, and what the console says."""
    found: list[str] = tab.ask(_SCRIPT)
    return [*found, *tab.errors]
