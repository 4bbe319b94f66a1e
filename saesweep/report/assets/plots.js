// Unpacks the embedded plotly.js and draws every figure in the colours of the theme. With #png in the address, pictures of
// them go into the page, which is how `saesweep report` writes its PNG files.
(async () => {
  const boxes = [...document.querySelectorAll(".plot")];
  const forPictures = location.hash === "#png";
  if (forPictures) document.documentElement.dataset.theme = "light";
  function figureOf(box) {
    const text = document.getElementById(box.dataset.figure).textContent.replace(/var\((--[a-z]+)\)/g, (_, name) => theme(name));
    const figure = JSON.parse(text), layout = figure.layout;
    if (forPictures) { layout.paper_bgcolor = "#ffffff"; layout.plot_bgcolor = "#ffffff"; }
    if (matchMedia("(prefers-color-scheme: dark)").matches && !forPictures) for (const trace of figure.data) if (trace.type === "scatter" && trace.opacity) trace.opacity = Math.min(1, trace.opacity + 0.2);  // pale is dim there
    const entries = figure.data.filter((trace) => trace.name && trace.showlegend !== false), names = entries.map((trace) => trace.name.length);
    const roomy = layout.meta && layout.meta.min_width;
    box.style.width = "";
    if (roomy && roomy > box.parentElement.clientWidth && !forPictures) { box.style.width = roomy + "px"; layout.width = roomy; }
    if (box.parentElement.clientWidth < 560 && !forPictures) {  // a phone: the legend below, and no room lost at the sides
      layout.font = { ...layout.font, size: 11 };
      const columns = Math.max(1, Math.floor((box.clientWidth - 80) / (52 + 6.2 * Math.max(0, ...names))));
      const legend = names.length > 1 || layout.showlegend ? 12 + 21 * Math.ceil(names.length / columns) : 0;
      layout.height += legend - (layout.annotations ? 0 : 24);
      layout.margin = { ...layout.margin, l: Math.min(layout.margin.l, 48), r: layout.annotations ? layout.margin.r : Math.min(layout.margin.r, 16), t: layout.margin.t - (layout.annotations ? 0 : 24), b: Math.max(layout.margin.b, 52) + legend };
      layout.legend = { ...layout.legend, yref: "container", y: 0, yanchor: "bottom", font: { size: 11 } };
      for (const note of layout.annotations || []) if (note.font) note.font.size = Math.min(note.font.size || 12, 10);
    } else if (names.length > 1) {  // room above the plot for every row of the legend, below the buttons
      const isGrouped = entries.some((trace) => trace.legendgroup), wide = box.clientWidth - 90, most = Math.max(...names);
      const rows = isGrouped ? Math.ceil(names.reduce((sum, n) => sum + 56 + 7.4 * n, 0) / wide) : Math.ceil(names.length / Math.max(1, Math.floor(wide / (56 + 7.4 * most))));
      const extra = (isGrouped ? 30 : 21) * (rows - 1);
      layout.height += extra;
      layout.margin = { ...layout.margin, t: layout.margin.t + extra };
    }
    return figure;
  }
  async function draw(box) {
    const figure = figureOf(box);
    box.style.height = figure.layout.height + "px";
    const buttons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
    await Plotly.react(box, figure.data, figure.layout, { responsive: true, displaylogo: false, modeBarButtons: buttons });
    box.removeAllListeners("plotly_relayout");
    box.on("plotly_relayout", (change) => {  // ticks are chosen for the whole range; a part of it needs others
      const zoomed = Object.keys(change).map((key) => /^([xy]axis)\.range/.exec(key)).filter(Boolean).map((found) => found[1]);
      const changes = Object.fromEntries([...new Set(zoomed)].filter((axis) => box.layout[axis].tickmode !== "auto" && box.layout[axis].type === "log").map((axis) => [axis + ".tickmode", "auto"]));
      if (Object.keys(changes).length) Plotly.relayout(box, changes);
    });
  }
  try {
    const script = document.createElement("script");
    script.textContent = await unpack("plotly-gz");
    document.head.appendChild(script);
    for (const box of boxes) {
      await draw(box);
      if (forPictures) {
        const picture = document.createElement("pre");
        picture.className = "png";
        picture.dataset.name = box.dataset.name;
        picture.textContent = await Plotly.toImage(box, { format: "png", width: 1000, height: figureOf(box).layout.height, scale: 1.5 });
        document.body.appendChild(picture);
      }
    }
    for (const menu of document.querySelectorAll("select[data-plot]")) {
      const box = document.querySelector(`.plot[data-name="${menu.dataset.plot}"]`);
      menu.addEventListener("change", () => { box.dataset.figure = menu.value; draw(box); });
      if (menu.value !== box.dataset.figure) menu.dispatchEvent(new Event("change"));  // a reload keeps what was chosen
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => boxes.forEach(draw));
    document.body.dataset.drawn = document.querySelectorAll(".plot.js-plotly-plot").length;
  } catch (error) {
    boxes.forEach((box) => { box.textContent = "The plots could not be drawn: " + error; box.classList.add("failed"); });
    throw error;
  }
})();
