// Draws the sampled latents and filters them by density band, number, token or text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("latents"), search = document.getElementById("search");
  const band = document.getElementById("band"), count = document.getElementById("count");
  const text = (id) => data.vocabulary[id];
  const shown = (s) => s.replace(/\n/g, "↵").replace(/\t/g, "⇥");
  const make = (tag, css, content) => { const e = document.createElement(tag); if (css) e.className = css; if (content !== undefined) e.textContent = content; return e; };
  const number = (v) => (v === 0 ? "0" : Math.abs(v) < 0.001 ? v.toExponential(1) : v.toPrecision(3));

  function chips(title, pairs) {
    const line = make("div", "logits");
    line.append(make("b", "", title + " "));
    for (const [id, value] of pairs) { const chip = make("span", "chip", shown(text(id))); chip.title = (value > 0 ? "+" : "") + number(value); line.append(chip); }
    return line;
  }
  function draw(latent) {
    const box = make("div", "latent"); box.id = "latent-" + latent.n;
    box.append(make("h3", "", "Latent " + latent.n));
    box.append(make("div", "facts", `${data.bands[latent.b]} in training · fires on ${number(100 * latent.d)}% of ${data.tokens.toLocaleString("en")} held-out tokens · mean ${number(latent.a)}, maximum ${number(latent.m)}`));
    if (latent.p.length) { box.append(chips("promotes", latent.p)); box.append(chips("suppresses", latent.s)); }
    if (!latent.c.length) box.append(make("p", "note", "Never fires on these tokens."));
    for (const [ids, acts, peak] of latent.c) {
      const line = make("div", "snippet"); line.append(make("span", "value", number(acts[peak])));
      ids.forEach((id, i) => {
        const token = make("span", "token" + (i === peak ? " peak" : ""), shown(text(id)));
        if (acts[i] > 0) { token.style.background = `rgba(230, 120, 0, ${(0.08 + 0.72 * acts[i] / latent.m).toFixed(3)})`; token.title = number(acts[i]); }
        line.append(token);
      });
      box.append(line);
    }
    return box;
  }
  const haystack = data.latents.map((l) => [String(l.n), ...l.p.map((t) => text(t[0])), ...l.c.map((c) => c[0].map(text).join(""))].join("\n").toLowerCase());
  function update() {
    const wanted = search.value.trim().toLowerCase(), chosen = band.value;
    const exact = /^\d+$/.test(wanted);
    const found = data.latents.filter((l, i) => (chosen === "" || l.b === Number(chosen)) && (!wanted || (exact && l.n === Number(wanted)) || (!exact && haystack[i].includes(wanted))));
    list.replaceChildren(...found.map(draw));
    count.textContent = `${found.length} of ${data.latents.length} sampled latents (the SAE has ${data.d_sae.toLocaleString("en")})`;
  }
  data.bands.forEach((name, i) => { const n = data.latents.filter((l) => l.b === i).length; if (n) { const o = make("option", "", `${name} (${n})`); o.value = i; band.append(o); } });
  search.addEventListener("input", update); band.addEventListener("change", update);
  const asked = new URLSearchParams(location.hash.slice(1));
  search.value = asked.get("search") || ""; band.value = asked.get("band") || "";
  update();
  document.body.dataset.drawn = list.children.length;
})();
