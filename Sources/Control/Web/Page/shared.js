"use strict";

/** Formats and drawings, for the live page and the report. */
const Ferry = (() => {
  const NONE = "–";

  // Elements

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === null || value === undefined || value === false) continue;
      node.setAttribute(name, value === true ? "" : String(value));
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  const element = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  const byId = (id) => document.getElementById(id);
  const note = (words) => element("p", { class: "note" }, words);

  /** Sets the text of a node only if it differs, so that nothing is laid out again in vain. */
  function say(node, text) {
    if (node && node.textContent !== text) node.textContent = text;
  }

  // Formats

  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

  const fixed = [0, 1, 2].map(
    (digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
  );

  const significant = (x) => fixed[Math.abs(x) >= 99.95 ? 0 : Math.abs(x) >= 9.995 ? 1 : 2].format(x);

  const known = (x) => typeof x === "number" && Number.isFinite(x);
  const count = (x) => (known(x) ? whole.format(x) : NONE);

  function duration(us) {
    if (!known(us)) return NONE;
    if (us === 0) return "0 s";
    if (us < 999.5) return `${us < 9.95 ? significant(us) : whole.format(us)} µs`;
    if (us < 999_500) return `${significant(us / 1e3)} ms`;
    if (us < 59_995_000) return `${significant(us / 1e6)} s`;
    const seconds = Math.round(us / 1e6);
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    const minutes = Math.round(seconds / 60);
    if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    const hours = Math.round(minutes / 60);
    return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  }

  function bytes(n) {
    if (!known(n)) return NONE;
    let unit = 0;
    while (n >= 1023.5 && unit < 5) [n, unit] = [n / 1024, unit + 1];
    return `${unit === 0 ? whole.format(n) : significant(n)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
  }

  const rate = (n) => (known(n) ? `${bytes(n)}/s` : NONE);

  /** A share in percent that is 100 only if all of it is there, and 0 only if none is. */
  function percent(part, total) {
    if (!known(part) || !known(total) || total <= 0) return NONE;
    const share = (100 * part) / total;
    if (part > 0 && share < 0.1) return "< 0.1\u00a0%";
    if (part < total && share > 99.9) return "> 99.9\u00a0%";
    return `${share.toFixed(part === 0 || part >= total ? 0 : 1)}\u00a0%`;
  }

  const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const clock = (unixMilliseconds) => (known(unixMilliseconds) ? clockFormat.format(unixMilliseconds) : NONE);

  /** A duration without digits that are zero, for axes. */
  const short = (us) => duration(us).replace(/\.0+ /, " ");

  /** A time after a beginning, with a sign, to the millisecond. */
  function after(us) {
    if (!known(us)) return "";
    if (us < 999_500) return us === 0 ? "0" : `+${duration(us)}`;
    if (us < 60e6) return `+${(us / 1e6).toFixed(3)} s`;
    return `+${Math.floor(us / 60e6)} min ${((us % 60e6) / 1e6).toFixed(1)} s`;
  }

  const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

  function decode64(text) {
    const binary = atob(text ?? "");
    const out = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i += 1) out[i] = binary.charCodeAt(i);
    return out;
  }

  // Colours

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const themeChanged = [];
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    patterns.clear();
    for (const redraw of themeChanged) redraw();
  });

  /** The kinds of a page, in the order of the bytes of a cell. */
  const KINDS = [
    { key: "missing", name: "Missing", says: "not here yet" },
    { key: "asked", name: "Asked for", says: "requested, on the way" },
    { key: "demand", name: "Demand", says: "a thread waited for it" },
    { key: "prefetched", name: "Prefetched", says: "requested before it was touched" },
    { key: "pushed", name: "Pushed", says: "sent by the source in the background" },
    { key: "zero", name: "Zero", says: "a page of zeros, sent without bytes" },
  ];

  const patterns = new Map();

  /** The fill of a kind: a colour, or a pattern that also differs for people who do not see the colour. */
  function kindFill(context, kind) {
    const key = KINDS[kind].key;
    if (key === "missing" || key === "pushed" || key === "demand") return colour(`map-${key}`);
    if (!patterns.has(key)) {
      const tile = document.createElement("canvas");
      tile.width = tile.height = 4;
      const draw = tile.getContext("2d");
      if (key === "prefetched") {
        draw.fillStyle = colour("map-prefetched");
        draw.fillRect(0, 0, 4, 4);
        draw.fillStyle = colour("map-prefetched-line");
        draw.fillRect(0, 3, 4, 1);
      } else if (key === "zero") {
        draw.fillStyle = colour("map-zero-ground");
        draw.fillRect(0, 0, 4, 4);
        draw.fillStyle = colour("map-zero");
        draw.fillRect(0, 0, 2, 2);
        draw.fillRect(2, 2, 2, 2);
      } else {
        draw.fillStyle = colour("map-asked-ground");
        draw.fillRect(0, 0, 4, 4);
        draw.fillStyle = colour("map-asked");
        for (let i = 0; i < 4; i += 1) draw.fillRect(i, 3 - i, 1, 1), draw.fillRect((i + 1) % 4, 3 - i, 1, 1);
      }
      patterns.set(key, tile);
    }
    return context.createPattern(patterns.get(key), "repeat");
  }

  /** A square that shows the fill of a kind. */
  function swatch(kind) {
    const canvas = element("canvas", { class: "swatch", width: 36, height: 36, "aria-hidden": "true" });
    const draw = () => {
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.setTransform(2, 0, 0, 2, 0, 0);
      context.fillStyle = kindFill(context, kind);
      context.fillRect(0, 0, 18, 18);
    };
    draw();
    themeChanged.push(draw);
    return canvas;
  }

  // Charts

  /** A drawing that is made anew when its place has another width. */
  class Chart {
    constructor(host, draw) {
      this.host = host;
      this.drawIn = draw;
      this.data = null;
      host.classList.add("chart");
      new ResizeObserver(() => {
        if (this.data && host.clientWidth !== this.width) this.draw(this.data);
      }).observe(host);
    }

    draw(data) {
      this.data = data;
      this.width = this.host.clientWidth;
      if (this.width < 40) return;
      this.host.replaceChildren(this.drawIn(data, this.width));
    }
  }

  const log10 = Math.log10;

  /** Round values between two bounds of a logarithmic axis. */
  function logTicks(low, high) {
    const ticks = [];
    const decades = log10(high / low);
    const steps = decades > 3.2 ? [1] : decades > 1.6 ? [1, 3] : [1, 2, 5];
    for (let power = Math.floor(log10(low)); power <= Math.ceil(log10(high)); power += 1) {
      for (const step of steps) {
        const tick = step * 10 ** power;
        if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
      }
    }
    return ticks;
  }

  /** Round values from 0 to at least a bound. */
  function linearTicks(high, wanted = 4, base = 10) {
    const rough = high / wanted || 1;
    const power = base ** Math.floor(Math.log(rough) / Math.log(base));
    const step = (base === 10 ? [1, 2, 5, 10] : [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])
      .map((factor) => factor * power)
      .find((candidate) => candidate >= rough);
    const ticks = [];
    for (let tick = 0; tick < high + step * 0.999; tick += step) ticks.push(tick);
    return ticks;
  }

  const picture = (width, height, label, ...children) =>
    svg(
      "svg",
      { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      ...children.flat(3),
    );

  const text = (x, y, words, attributes) => svg("text", { x: x.toFixed(1), y: y.toFixed(1), ...attributes }, words);
  const line = (x1, y1, x2, y2, attributes) =>
    svg("path", { d: `M${x1.toFixed(1)} ${y1.toFixed(1)}L${x2.toFixed(1)} ${y2.toFixed(1)}`, ...attributes });

  /** Moves labels apart that would overlap. */
  function spread(places, gap, low, high) {
    const sorted = places.map((place, i) => ({ place, i })).sort((a, b) => a.place - b.place);
    let last = low - gap;
    for (const entry of sorted) last = entry.place = Math.max(entry.place, last + gap);
    last = high + gap;
    for (const entry of sorted.reverse()) last = entry.place = Math.min(entry.place, last - gap);
    const out = [];
    for (const { place, i } of sorted) out[i] = place;
    return out;
  }

  /** Lines over time. `data`: `{times, series: [{name, values}], log, format, floor, label}` with times in ms. */
  function timeLines(data, width) {
    const height = width < 480 ? 220 : 250;
    const end = data.times.at(-1) ?? 0;
    const span = Math.max(20_000, end - (data.times[0] ?? end));
    const values = data.series.flatMap((s) => s.values).filter((v) => known(v) && (!data.log || v > 0));
    if (data.floor > 0) values.push(data.floor);
    let low = data.log ? Math.min(...values) / 1.3 : 0;
    let high = Math.max(...values) * (data.log ? 1.3 : 1.05);
    if (!Number.isFinite(high) || high <= 0) [low, high] = data.log ? [10, 1000] : [0, 1];
    if (data.least) high = Math.max(high, data.least);
    const ticks = data.log ? logTicks(low, high) : linearTicks(high, 4, data.base);
    if (!data.log) high = Math.max(high, ticks.at(-1));
    const widest = Math.max(...ticks.map((tick) => data.format(tick).length));
    const [left, right, top, bottom] = [Math.max(52, widest * 7 + 10), data.names === false ? 12 : 58, 10, 26];
    const x = (time) => left + (1 - (end - time) / span) * (width - left - right);
    const share = (v) => (data.log ? log10(v / low) / log10(high / low) : v / high);
    const y = (v) => height - bottom - share(v) * (height - top - bottom);
    const nodes = ticks.map((tick) => [
      line(left, y(tick), width - right, y(tick), { class: "grid" }),
      text(left - 8, y(tick) + 4, data.format(tick), { "text-anchor": "end" }),
    ]);
    const steps = width < 480 ? 2 : 4;
    for (let i = 0; i <= steps; i += 1) {
      const ago = (span * (steps - i)) / steps;
      const anchor = i === steps ? "end" : i === 0 ? "start" : "middle";
      const when = ago === 0 ? "now" : `−${short(ago * 1e3)}`;
      nodes.push(text(x(end - ago), height - 6, when, { "text-anchor": anchor }));
    }
    if (data.floor > 0) {
      nodes.push(line(left, y(data.floor), width - right, y(data.floor), { class: "floor" }));
      nodes.push(text(left + 6, y(data.floor) - 6, `floor ${duration(data.floor)}`, { class: "floor-name" }));
    }
    const lasts = [];
    data.series.forEach((series, index) => {
      let path = "";
      let pen = "M";
      let before = -1;
      series.values.forEach((value, i) => {
        if (!known(value) || (data.log && value <= 0)) {
          pen = "M";
          return;
        }
        const px = x(data.times[i]);
        // Points closer than a pixel add nothing but work.
        if (pen === "L" && px - before < 1 && i < series.values.length - 1) return;
        path += `${pen}${px.toFixed(1)} ${y(value).toFixed(1)}`;
        [pen, before] = ["L", px];
      });
      const last = series.values.findLast((value) => known(value) && (!data.log || value > 0));
      if (path) nodes.push(svg("path", { d: path, class: `line s${series.style ?? index}` }));
      if (last !== undefined) lasts.push({ name: series.name, y: y(last) });
    });
    if (data.names !== false) {
      spread(lasts.map((entry) => entry.y), 14, top + 6, height - bottom - 2).forEach((place, i) =>
        nodes.push(text(width - right + 6, place + 4, lasts[i].name, { class: "name" })),
      );
    }
    nodes.push(line(left, height - bottom, width - right, height - bottom, { class: "axis" }));
    return picture(width, height, data.label, nodes);
  }

  /** The lower bound of each bucket. A bucket without stalls is absent, so the width comes from the scale. */
  const bucketLow = (upper, perOctave) => upper / 2 ** (1 / perOctave);

  /** The ticks of a logarithmic axis of times below a drawing, each with its label if there is room. */
  function timeTicks(x, low, high, width, bottom) {
    const nodes = [];
    let free = 0;
    for (const tick of logTicks(low, high)) {
      const label = short(tick);
      const half = label.length * 3.3;
      nodes.push(line(x(tick), bottom, x(tick), bottom + 4, { class: "axis" }));
      if (x(tick) - half < free || x(tick) + half > width) continue;
      nodes.push(text(x(tick), bottom + 20, label, { "text-anchor": "middle" }));
      free = x(tick) + half + 8;
    }
    return nodes;
  }

  /** The upright line of the floor, with its name; nothing if the floor is not known. */
  function floorLine(x, floor, width, top, bottom) {
    if (!(floor > 0)) return [];
    const [at, isRight] = [x(floor), x(floor) > width * 0.6];
    const anchor = isRight ? "end" : "start";
    return [
      line(at, top - 4, at, bottom, { class: "floor" }),
      text(at + (isRight ? -6 : 6), top, `floor ${duration(floor)}`, { class: "floor-name", "text-anchor": anchor }),
    ];
  }

  /** Counts of durations, on logarithmic axes. `data`: `{buckets: [[upper_us, count]], perOctave, floor, label}`. */
  function histogram(data, width) {
    const height = width < 480 ? 220 : 250;
    const [left, right, top, bottom] = [58, 14, 20, 26];
    const perOctave = data.perOctave ?? 1;
    const buckets = data.buckets.filter(([upper, n]) => upper > 0 && n > 0);
    const uppers = buckets.map(([upper]) => upper);
    const low = Math.min(bucketLow(Math.min(...uppers), perOctave), data.floor > 0 ? data.floor / 1.5 : Infinity);
    const high = Math.max(...uppers, data.floor > 0 ? data.floor * 1.5 : 0);
    const most = Math.max(...buckets.map(([, n]) => n));
    const x = (us) => left + (log10(us / low) / log10(high / low)) * (width - left - right);
    const y = (n) => height - bottom - (log10(n / 0.5) / log10((most * 1.4) / 0.5)) * (height - top - bottom);
    const nodes = [];
    for (let tick = 1; tick <= most * 1.4; tick *= 10) {
      nodes.push(line(left, y(tick), width - right, y(tick), { class: "grid" }));
      nodes.push(text(left - 8, y(tick) + 4, count(tick), { "text-anchor": "end" }));
    }
    nodes.push(timeTicks(x, low, high, width, height - bottom));
    for (const [upper, n] of buckets) {
      const from = x(bucketLow(upper, perOctave));
      const wide = Math.max(1, x(upper) - from - (perOctave > 4 ? 0.5 : 1.5));
      nodes.push(
        svg("rect", {
          x: from.toFixed(1), y: y(n).toFixed(1), width: wide.toFixed(1),
          height: (height - bottom - y(n)).toFixed(1), class: "bar",
        }),
      );
    }
    nodes.push(floorLine(x, data.floor, width, top, height - bottom));
    nodes.push(line(left, height - bottom, width - right, height - bottom, { class: "axis" }));
    return picture(width, height, data.label, nodes);
  }

  // Parts of pages

  /** A figure for a list of figures: `[name, value, text beside it]`. */
  function figure(name, value, beside = "") {
    return element(
      "div",
      null,
      element("dt", null, name),
      element("dd", null, value, beside ? element("div", { class: "beside" }, beside) : null),
    );
  }

  /** Shows figures, and changes only the texts that differ. */
  function figures(list, entries) {
    if (list.children.length !== entries.length) list.replaceChildren(...entries.map(() => figure("", "", " ")));
    entries.forEach(([name, value, beside], i) => {
      const [term, data] = list.children[i].children;
      say(term, name);
      if (data.firstChild.nodeType !== Node.TEXT_NODE) data.prepend("");
      if (data.firstChild.data !== value) data.firstChild.data = value;
      say(data.lastElementChild, beside ?? "");
    });
  }

  /** A table. `columns`: `[name, isNumber]`; the first cell of a row is its header. */
  function table(caption, columns, rows) {
    const kind = (i) => (columns[i][1] ? "number" : null);
    return element(
      "table",
      null,
      caption ? element("caption", null, caption) : null,
      element(
        "thead",
        null,
        element("tr", null, ...columns.map(([name], i) => element("th", { scope: "col", class: kind(i) }, name))),
      ),
      element(
        "tbody",
        null,
        ...rows.map((row) =>
          element(
            "tr",
            null,
            ...row.map((cell, i) =>
              i === 0
                ? element("th", { scope: "row", class: kind(i) }, cell)
                : element("td", { class: kind(i) }, cell),
            ),
          ),
        ),
      ),
    );
  }

  /** The parts of the downtime, in their order: key, name, where the part happens, and what happens. */
  const SWITCHOVER = [
    ["stop", "Stop", "source", "The source stops the workload."],
    ["save", "Save", "source", "The source saves the devices."],
    ["transfer", "Transfer", "link", "The device states travel, and the answer comes back."],
    ["load", "Load", "destination", "The destination loads the devices."],
    ["grant", "Grant", "link", "The round trip of the permission to start."],
    ["start", "Start", "destination", "The destination starts the workload."],
  ];

  /** A table whose bars begin where the bar before ended. `times`: the microseconds of each known part by its key. */
  function waterfall(times, caption) {
    const of = (key) => times[key] ?? times[`${key}_us`] ?? 0;
    const parts = SWITCHOVER.filter(([key]) => known(times[key] ?? times[`${key}_us`]));
    const sum = parts.reduce((total, [key]) => total + of(key), 0) || 1;
    let begun = 0;
    const rows = parts.map(([key, name, where, says]) => {
      const time = of(key);
      const bar = svg(
        "svg",
        { class: "fall", viewBox: "0 0 1000 16", preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("path", { class: "track", d: "M0 15.5H1000" }),
        svg("rect", {
          class: where, x: (1000 * begun) / sum, y: 1, width: Math.max(3, (1000 * time) / sum), height: 13,
        }),
      );
      begun += time;
      return element(
        "tr",
        null,
        element("th", { scope: "row" }, name, element("div", { class: "note" }, says)),
        element("td", null, where),
        element("td", { class: "fall-place" }, bar),
        element("td", { class: "number" }, duration(time)),
      );
    });
    return element(
      "table",
      { class: "waterfall" },
      caption ? element("caption", null, caption) : null,
      element(
        "thead",
        null,
        element(
          "tr",
          null,
          element("th", { scope: "col" }, "Part"),
          element("th", { scope: "col" }, "Where"),
          element("th", { scope: "col" }, "One after the other"),
          element("th", { scope: "col", class: "number" }, "Time"),
        ),
      ),
      element("tbody", null, ...rows),
    );
  }

  return {
    NONE, KINDS, element, svg, byId, note, say, known, count, duration, short, bytes, rate, percent, clock, after,
    plural, decode64, colour, themeChanged, kindFill, swatch, Chart, timeLines, histogram, picture,
    text, line, linearTicks, timeTicks, floorLine, bucketLow, figures, table, waterfall,
  };
})();
