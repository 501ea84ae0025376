// What page_check.py runs in a page. Each function returns the problems that it found, and a note.
window.check = (() => {
  const parse = (text) => {
    const m = text.match(/rgba?\(([^)]+)\)/);
    if (!m) return null;
    const [r, g, b, a] = m[1].split(/[\s,\/]+/).map(Number);
    return [r, g, b, a ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const straight = (v) => (v <= 0.04045 * 255 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(straight);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const contrast = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      let fill = parse(getComputedStyle(at).backgroundColor);
      if (at instanceof SVGElement && at !== node) {
        const rect = [...at.children].findLast((c) => c.tagName === "rect" && getComputedStyle(c).fill !== "none");
        fill = rect && at.tagName === "g" ? parse(getComputedStyle(rect).fill) : null;
      }
      if (fill && fill[3] > 0) layers.push(fill);
      if (fill && fill[3] === 1) break;
    }
    let below = parse(getComputedStyle(document.documentElement).backgroundColor);
    if (!below || below[3] === 0) below = parse(getComputedStyle(document.body).backgroundColor);
    return layers.reverse().reduce((ground, layer) => over(layer, ground), below);
  };
  const isSeen = (node) => {
    if (!node.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) return false;
    const box = node.getBoundingClientRect();
    return box.width > 1 && box.height > 1 && !node.closest(".visually-hidden");
  };
  const name = (node) => {
    const kind = node.getAttribute("class");
    const tag = `${node.tagName.toLowerCase()}${node.id ? `#${node.id}` : ""}${kind ? `.${kind}` : ""}`;
    return `${tag} “${node.textContent.trim().slice(0, 30)}”`;
  };
  const silent = "script, style, template, noscript, option";

  return {
    texts() {
      const problems = [];
      let least = 99;
      const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      let number = 0;
      while (walk.nextNode()) {
        const node = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || node.matches(silent) || !isSeen(node)) continue;
        const style = getComputedStyle(node);
        const ink = parse(node instanceof SVGElement ? style.fill : style.color);
        const below = ground(node);
        const size = parseFloat(style.fontSize);
        const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
        const ratio = contrast(over(ink, below), below);
        number += 1;
        least = Math.min(least, ratio);
        if (ratio < wanted) problems.push(`${name(node)}: ${ratio.toFixed(2)}`);
      }
      for (const input of document.querySelectorAll("input[placeholder]")) {
        const below = ground(input);
        const ratio = contrast(over(parse(getComputedStyle(input, "::placeholder").color), below), below);
        if (isSeen(input) && ratio < 4.5) problems.push(`placeholder of ${name(input)}: ${ratio.toFixed(2)}`);
      }
      return { problems: [...new Set(problems)], note: `${number} texts, least ${least.toFixed(2)}:1` };
    },

    graphics() {
      const hex = (variable) => {
        const text = getComputedStyle(document.documentElement).getPropertyValue(`--${variable}`).trim();
        return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)).concat(1);
      };
      const problems = [];
      let least = 99;
      const want = (a, b) => {
        const ratio = contrast(hex(a), hex(b));
        least = Math.min(least, ratio);
        if (ratio < 3) problems.push(`${a} on ${b}: ${ratio.toFixed(2)}`);
      };
      for (const kind of ["asked", "demand", "prefetched", "pushed", "zero"]) want(`map-${kind}`, "map-missing");
      const parts = ["graphic", "accent", "good", "warn", "bad", "map-demand", "map-prefetched", "map-pushed", "ink"];
      for (const part of parts) want(part, "surface");
      for (const part of ["graphic", "accent"]) want(part, "page");
      // Only the report draws times of arrival.
      const isReport = document.getElementById("sections") !== null;
      for (let i = 0; isReport && i < 5; i += 1) want(`ramp-${i}`, "map-missing");

      // Kinds of the map for people who lack one kind of cone, by the matrices of Machado et al. 2009.
      const sights = {
        usual: [1, 0, 0, 0, 1, 0, 0, 0, 1],
        protanopia: [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
        deuteranopia: [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
        tritanopia: [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039],
      };
      const lab = (linear) => {
        const [r, g, b] = linear;
        const f = (t) => (t > 216 / 24389 ? Math.cbrt(t) : (24389 / 27 * t + 16) / 116);
        const x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047);
        const y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
        const z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883);
        return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
      };
      const linear = (c) => c.slice(0, 3).map(straight);
      // The mean colour of each pattern: what a small cell looks like.
      const mix = (a, b, share) => a.map((v, i) => v * share + b[i] * (1 - share));
      const L = (variable) => linear(hex(variable));
      const kinds = {
        missing: L("map-missing"), asked: mix(L("map-asked"), L("map-asked-ground"), 0.5), demand: L("map-demand"),
        prefetched: mix(L("map-prefetched"), L("map-prefetched-line"), 0.75), pushed: L("map-pushed"),
        zero: mix(L("map-zero"), L("map-zero-ground"), 0.5),
      };
      let nearest = 999, pair = "";
      for (const [sight, m] of Object.entries(sights)) {
        const through = (c) => [0, 3, 6].map((i) => Math.max(0, m[i] * c[0] + m[i + 1] * c[1] + m[i + 2] * c[2]));
        const seen = Object.entries(kinds).map(([kind, c]) => [kind, lab(through(c))]);
        seen.forEach(([a, p], i) => {
          for (const [b, q] of seen.slice(i + 1)) {
            const far = Math.hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]);
            if (far < nearest) [nearest, pair] = [far, `${a} and ${b}, ${sight}`];
            if (far < 15) problems.push(`${a} and ${b} look alike with ${sight} sight: ΔE ${far.toFixed(1)}`);
          }
        });
      }
      const apart = `kinds at least ΔE ${nearest.toFixed(0)} apart (${pair})`;
      return { problems, note: `least ${least.toFixed(2)}:1, ${apart}` };
    },

    structure() {
      const problems = [];
      if (document.documentElement.lang !== "en") problems.push("the page has no language");
      if (!document.title || document.title === "Pageferry") problems.push(`the title is “${document.title}”`);
      if (!document.querySelector("meta[name=viewport]")) problems.push("no viewport");
      const headings = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter((h) => h.checkVisibility());
      const ones = headings.filter((heading) => heading.tagName === "H1");
      if (ones.length !== 1 || headings[0] !== ones[0]) problems.push("the first heading is not the only h1");
      let level = 0;
      for (const heading of headings) {
        const next = Number(heading.tagName[1]);
        if (next > level + 1) problems.push(`h${next} follows h${level}: ${name(heading)}`);
        if (!heading.textContent.trim()) problems.push("an empty heading");
        level = next;
      }
      const ids = [...document.querySelectorAll("[id]")].map((n) => n.id);
      for (const id of new Set(ids)) {
        if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`the id ${id} is there twice`);
      }
      for (const [selector, what] of [["body > header", "banner"], ["main", "main"], ["body > footer", "contentinfo"]])
        if (document.querySelectorAll(selector).length !== 1) problems.push(`no single landmark ${what}`);
      for (const child of document.body.children) {
        const isApart = child.matches("header, main, footer, template, script, dialog, .skip, [role]");
        if (!isApart && child.checkVisibility()) problems.push(`${name(child)} is in no landmark`);
      }
      for (const table of document.querySelectorAll("table")) {
        if (!table.checkVisibility()) continue;
        const heads = [...table.querySelectorAll("thead th")];
        const isHeaded = heads.length > 0 && heads.every((th) => th.scope === "col");
        if (!isHeaded) problems.push(`a table without column headers: ${name(table)}`);
        if (heads.some((th) => !th.textContent.trim())) problems.push(`a column header is empty: ${name(table)}`);
        for (const row of table.tBodies[0].rows) {
          const hasHead = row.matches("[aria-hidden]") || row.querySelector("th[scope=row]");
          if (!hasHead) problems.push(`a row without header: ${name(row)}`);
        }
        const around = table.closest("section[aria-labelledby], [role=region][aria-label]");
        const isNamed = table.caption || table.hasAttribute("aria-labelledby") || around;
        if (!isNamed) problems.push(`a table without a name: ${name(table)}`);
      }
      for (const attribute of ["aria-labelledby", "aria-describedby"]) {
        for (const node of document.querySelectorAll(`[${attribute}]`)) {
          for (const id of node.getAttribute(attribute).split(" ")) {
            if (!document.getElementById(id)) problems.push(`${id} is referenced and does not exist`);
          }
        }
      }
      return { problems, note: `${headings.length} headings, ${document.querySelectorAll("table").length} tables` };
    },

    width() {
      const over = document.scrollingElement.scrollWidth - innerWidth;
      const problems = [];
      if (over > 0) {
        problems.push(`wider than the window by ${over} px`);
        for (const node of document.querySelectorAll("body *")) {
          const isOver = node.getBoundingClientRect().right > innerWidth + 1;
          if (isOver && !node.closest(".scroller")) problems.push(name(node));
          if (problems.length > 4) break;
        }
      }
      for (const node of document.querySelectorAll("button, input, select, summary")) {
        const box = node.getBoundingClientRect();
        const target = node.type === "checkbox" ? node.closest("label").getBoundingClientRect() : box;
        const counts = node.checkVisibility() && !node.closest(".scroller");
        if (counts && target.height < 24) problems.push(`${name(node)} is ${box.height.toFixed(0)} px high`);
      }
      return { problems, note: `${document.scrollingElement.scrollWidth} of ${innerWidth} px` };
    },

    focused() {
      const node = document.activeElement;
      if (!node || node === document.body) return null;
      const style = getComputedStyle(node);
      const box = node.getBoundingClientRect();
      const before = window.lastFocus;
      window.lastFocus = node;
      return {
        name: name(node), id: node.id,
        outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        inView: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth && box.width > 1,
        inOrder:
          !before?.isConnected ||
          Boolean(before.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING),
      };
    },
  };
})();
