// Unpacks the embedded plotly.js and draws every figure. With #png in the address, pictures of them go into the page,
// which is how `saesweep report` writes its PNG files.
(async () => {
  const failed = (text) => document.querySelectorAll(".plot").forEach((box) => { box.textContent = text; box.classList.add("failed"); });
  if (!("DecompressionStream" in window)) { failed("This plot needs a browser of 2023 or later."); return; }
  try {
    const packed = document.getElementById("plotly-gz").textContent.trim();
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const code = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = code;
    document.head.appendChild(script);
    for (const box of document.querySelectorAll(".plot")) {
      const figure = JSON.parse(document.getElementById(box.dataset.figure).textContent);
      await Plotly.newPlot(box, figure.data, figure.layout, { responsive: true, displaylogo: false });
      if (location.hash === "#png") {
        const picture = document.createElement("pre");
        picture.className = "png";
        picture.dataset.name = box.dataset.name;
        picture.textContent = await Plotly.toImage(box, { format: "png", width: 1000, height: figure.layout.height, scale: 1.5 });
        document.body.appendChild(picture);
      }
    }
    document.body.dataset.drawn = document.querySelectorAll(".plot.js-plotly-plot").length;
  } catch (error) { failed("The plots could not be drawn: " + error); throw error; }
})();
