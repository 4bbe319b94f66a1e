// Lists every latent, and filters them by band, number, token or text. Cards are drawn a page at a time.
(async () => {
  const data = JSON.parse(await unpack("data-gz"));
  const at = (id) => document.getElementById(id);
  const list = at("latents"), search = at("search"), band = at("band"), order = at("order"), count = at("count"), more = at("more");
  const pick = at("sae"), beside = at("beside");
  const PAGE = 30, BEFORE = 14, AFTER = 6;
  const text = (id) => (id in data.vocabulary ? data.vocabulary[id] : "");
  // What has no glyph is named, as bytes of a part of a character are.
  const hex = (c) => `<0x${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}>`;
  const shown = (s) => s.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/[\x00-\x1f\x7f-\x9f]/g, hex);
  // In a table, blanks would be nothing to see.
  const named = (s) => shown(s).replace(/ {2,}/g, (run) => `␣×${run.length}`).replace(/^ $/, "␣");
  const make = (tag, css, content) => { const e = document.createElement(tag); if (css) e.className = css; if (content !== undefined) e.textContent = content; return e; };
  const svg = (tag, attributes, content) => { const e = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v); if (content !== undefined) e.textContent = content; return e; };
  const number = (v) => (v === 0 ? "0" : Math.abs(v) < 0.001 ? v.toExponential(1) : v.toPrecision(3));
  const whole = (v) => v.toLocaleString("en");
  const which = () => (pick ? Number(pick.value) : 0);

  function histogram(latent, max) {
    const width = 140, height = 64, top = Math.log1p(Math.max(...latent.h)), step = width / data.bins;
    const box = make("div"); box.append(make("h4", "", "Activations, log scale")); box.title = "tokens by activation";
    const picture = svg("svg", { width, height: height + 16, role: "img", "aria-label": "activation histogram", class: "histogram" });
    latent.h.forEach((n, i) => {
      const tall = n ? Math.max(1.5, (height * Math.log1p(n)) / top) : 0;
      const bar = svg("rect", { x: i * step + 0.5, y: height - tall, width: step - 1, height: tall });
      bar.append(svg("title", {}, `${whole(n)} tokens between ${number((max * i) / data.bins)} and ${number((max * (i + 1)) / data.bins)}`));
      picture.append(bar);
    });
    picture.append(svg("text", { x: 0, y: height + 13 }, "0"), svg("text", { x: width, y: height + 13, "text-anchor": "end" }, number(max)));
    box.append(picture);
    return box;
  }
  function logits(title, pairs, css) {
    const box = make("div"); box.append(make("h4", "", title));
    const rows = make("table");
    for (const [id, value] of pairs) { const row = make("tr"); row.append(make("td", "token", named(text(id))), make("td", css, (value > 0 ? "+" : "") + number(value))); rows.append(row); }
    box.append(rows);
    return box;
  }
  function goTo(sae, n) { if (pick) pick.value = sae; search.value = n; band.value = ""; update(); scrollTo({ top: list.offsetTop - 80 }); }
  function neighbours(sae, latent) {
    const box = make("div"); box.append(make("h4", "", "Nearest (cosine)")); box.title = "by decoder direction";
    const rows = make("table");
    for (const [n, cosine] of latent.k) {
      const row = make("tr"), cell = make("td"), link = make("button", "link", `#${n}`);
      link.addEventListener("click", () => goTo(sae, n));
      cell.append(link); row.append(cell, make("td", "", cosine.toFixed(2)), make("td", "token", named(text(data.saes[sae].t[n])))); rows.append(row);
    }
    box.append(rows);
    return box;
  }
  function byHook(hooks, shares) {
    const box = make("div"); box.append(make("h4", "", "Decoder norm by hook"));
    const rows = make("table");
    hooks.forEach((hook, i) => { const row = make("tr"); row.append(make("td", "token", hook), make("td", "", `${(100 * shares[i]).toFixed(0)}%`)); rows.append(row); });
    box.append(rows);
    return box;
  }
  const windowOf = ([context, begin, end, peak], open) => [open ? begin : Math.max(begin, peak - BEFORE), open ? end : Math.min(end, peak + AFTER + 1)];
  function example(found, max) {
    const [context, begin, , peak, , acts] = found, line = make("button", "example"), values = new Map();
    for (let i = 0; i < acts.length; i += 2) values.set(begin + acts[i], acts[i + 1]);
    line.append(make("span", "value", number(values.get(peak))));
    const words = make("span", "words"); line.append(words);
    const most = Number(theme("--heat-most"));
    function fill(open) {
      const [from, to] = windowOf(found, open);
      words.replaceChildren();
      for (let i = from; i < to; i++) {
        const label = shown(text(data.contexts[context][i])), token = make("span", "token", i === peak ? undefined : label);
        // The outline begins with the word: a line may end with the space before it.
        const blanks = label.trim() ? label.length - label.trimStart().length : 0;
        if (i === peak) token.append(label.slice(0, blanks), make("span", "peak", label.slice(blanks)));
        const value = values.get(i);
        if (value) { token.style.background = `rgba(${theme(value > 0 ? "--heat" : "--cold")}, ${(0.06 + (most - 0.06) * Math.min(1, Math.abs(value) / max)).toFixed(3)})`; token.title = number(value); }
        words.append(token);
      }
      line.setAttribute("aria-expanded", open);
    }
    line.title = "click for more or less of the document";
    line.addEventListener("click", () => fill(line.getAttribute("aria-expanded") !== "true"));
    fill(false);
    return line;
  }
  function card(sae, n, note) {
    const own = data.saes[sae], latent = own.latents[n], box = make("div", "latent"); box.id = `latent-${sae}-${n}`; box.dataset.number = n;
    const head = make("h3", "", `Latent ${n} `); if (note) head.append(make("small", "", note)); box.append(head);
    const share = own.f[n] / Math.max(1, own.tokens);
    box.append(make("div", "facts", own.f[n] ? `fires on ${number(100 * share)}% of ${whole(own.tokens)} held-out tokens (${whole(own.f[n])}) · mean ${number(own.a[n])}, maximum ${number(own.m[n])} on “${named(text(own.t[n])).trim()}”` : `never fires on ${whole(own.tokens)} held-out tokens`));
    if (!latent) { if (own.f[n]) box.append(make("p", "note", "No examples: not in the sample that has room on this page.")); return box; }
    const parts = make("div", "parts");
    if (own.f[n]) parts.append(histogram(latent, own.m[n]));
    if (latent.p.length) parts.append(logits("Raises", latent.p, "up"), logits("Lowers", latent.s, "down"));
    if (latent.d) parts.append(byHook(own.hooks, latent.d));
    if (latent.k.length) parts.append(neighbours(sae, latent));
    box.append(parts);
    let group = null;
    for (const found of latent.x) {
      if (found[4] !== group) {
        group = found[4];
        box.append(make("div", "group", group < 0 ? "Strongest" : `${number((own.m[n] * group) / data.intervals)} to ${number((own.m[n] * (group + 1)) / data.intervals)}`));
      }
      box.append(example(found, own.m[n]));
    }
    return box;
  }
  function pair(n) {
    const sae = which(), both = beside && beside.checked, latent = data.saes[sae].latents[n];
    const row = make("div", both ? "pair two" : "pair");
    row.append(card(sae, n, both ? data.saes[sae].name : ""));
    if (both && latent && latent.o) row.append(card(1 - sae, latent.o[0], `${data.saes[1 - sae].name}, the nearest by decoder, cosine ${latent.o[1].toFixed(2)}`));
    return row;
  }

  const stacks = data.saes.map(() => new Map());
  function haystack(sae, n) {
    const known = stacks[sae];
    if (!known.has(n)) {
      const own = data.saes[sae], latent = own.latents[n];
      const words = [text(own.t[n])];
      if (latent) { words.push(...latent.p.map(([id]) => text(id)), ...latent.s.map(([id]) => text(id)), ...latent.x.map((found) => { const [from, to] = windowOf(found, false); return data.contexts[found[0]].slice(from, to).map(text).join(""); })); }
      known.set(n, words.join("\n").toLowerCase());
    }
    return known.get(n);
  }
  let found = [], drawn = 0;
  function drawMore() {
    list.append(...found.slice(drawn, drawn + PAGE).map(pair));
    drawn = Math.min(found.length, drawn + PAGE);
    more.hidden = drawn === found.length;
  }
  function update() {
    const sae = which(), own = data.saes[sae], wanted = search.value.trim().toLowerCase(), exact = /^#?\d+$/.test(wanted);
    const chosen = band.value;
    found = [...own.f.keys()].filter((n) => (chosen === "" || own.b[n] === Number(chosen)) && (!wanted || (exact && n === Number(wanted.replace("#", ""))) || (!exact && haystack(sae, n).includes(wanted))));
    const has = (n) => (n in own.latents ? 0 : 1);
    const by = { number: (x, y) => x - y, density: (x, y) => own.f[y] - own.f[x] || x - y, max: (x, y) => own.m[y] - own.m[x] || x - y, band: (x, y) => own.b[x] - own.b[y] || has(x) - has(y) || x - y };
    found.sort(by[order.value]);
    list.replaceChildren(); drawn = 0; drawMore();
    count.textContent = `${whole(found.length)} of ${whole(own.f.length)} latents`;
  }
  function bands() {
    const own = data.saes[which()];
    band.replaceChildren(band.options[0]);
    own.bands.forEach((name, i) => { const o = make("option", "", `${name} (${whole(own.b.filter((b) => b === i).length)})`); o.value = i; band.append(o); });
  }
  let waiting;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(update, 120); });
  for (const menu of [band, order, beside]) if (menu) menu.addEventListener("change", update);
  if (pick) pick.addEventListener("change", () => { bands(); band.value = ""; update(); });
  more.addEventListener("click", drawMore);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
  const asked = new URLSearchParams(location.hash.slice(1));
  bands();
  search.value = asked.get("search") || ""; band.value = asked.get("band") || "";
  update();
  document.body.dataset.drawn = list.children.length;
})();
