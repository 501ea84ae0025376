"use strict";

/** The report of one migration or restored guest: draws the JSON that the file carries. */
(() => {
  const {
    KINDS, NONE, element, svg, byId, note, say, known, count, duration, short, after, bytes, rate, percent, plural,
    themeChanged, kindFill, swatch, Chart, histogram, figures, table, waterfall, bucketLow, picture, text, line,
    linearTicks, timeTicks, floorLine,
  } = Ferry;
  const { log10 } = Math;
  const report = JSON.parse(byId("data").textContent);
  const sections = byId("sections");
  const floorSum = () => (report.floor_us?.round_trip_p50 ?? 0) + (report.floor_us?.local_fault_p50 ?? 0);
  const isRestore = report.kind === "restore";
  const ORIGINS = ["demand", "prefetched", "pushed", "zero"];
  const arrivedPages = () => ORIGINS.reduce((sum, key) => sum + report.pages[key], 0);

  /**
   * The share of stalls that took at most a time, on an axis of nines.
   *
   * `data`: `{points: [[us, share]], floor, label}` with shares from 0 to 1 that grow.
   */
  function nines(data, width) {
    const height = width < 480 ? 220 : 250;
    const [left, right, top, bottom] = [58, 14, 20, 26];
    const inside = data.points.filter(([, share]) => share < 1);
    const depth = Math.max(1.2, -log10(1 - (inside.at(-1)?.[1] ?? 0.9)) + 0.4);
    const times = data.points.map(([us]) => us).filter((us) => us > 0);
    const low = Math.min(...times, data.floor > 0 ? data.floor : Infinity) / 1.2;
    const high = Math.max(...times) * 1.1;
    const x = (us) => left + (log10(Math.max(us, low) / low) / log10(high / low)) * (width - left - right);
    const y = (share) => height - bottom - (Math.min(depth, -log10(1 - share)) / depth) * (height - top - bottom);
    const nodes = [];
    for (const share of [0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999]) {
      if (-log10(1 - share) > depth) break;
      nodes.push(line(left, y(share), width - right, y(share), { class: "grid" }));
      const name = `${Number((share * 100).toFixed(4))} %`;
      nodes.push(text(left - 8, y(share) + 4, name, { "text-anchor": "end" }));
    }
    nodes.push(timeTicks(x, low, high, width, height - bottom));
    let path = "";
    data.points.forEach(([us, share], i) => {
      path += `${i ? "L" : "M"}${x(us).toFixed(1)} ${y(Math.min(share, 1 - 10 ** -depth)).toFixed(1)}`;
    });
    nodes.push(svg("path", { d: path, class: "line s2" }));
    nodes.push(floorLine(x, data.floor, width, top, height - bottom));
    nodes.push(line(left, height - bottom, width - right, height - bottom, { class: "axis" }));
    return picture(width, height, data.label, nodes);
  }

  // The parts of the page

  let parts = 0;

  /** A panel with a heading, in the page or in another place. */
  function panel(title, beside, ...children) {
    parts += 1;
    return element(
      "section",
      { class: "panel", "aria-labelledby": `part-${parts}` },
      element(
        "header",
        null,
        element("h2", { id: `part-${parts}` }, title),
        beside ? note(beside) : null,
      ),
      ...children,
    );
  }

  const columns = (...children) => element("div", { class: "columns" }, ...children.filter(Boolean));

  function disclosure(title, content) {
    return element(
      "details",
      null,
      element("summary", null, title),
      element("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": title }, content),
    );
  }

  /** Draws once the host is in the page and has a width. */
  function drawing(data, draw) {
    const host = element("div");
    const chart = new Chart(host, draw);
    chart.data = data;
    themeChanged.push(() => chart.draw(data));
    return host;
  }

  // The outcome

  const RUNS_ON = {
    source: "The workload runs on the source.",
    destination: "The workload runs on the destination.",
    nobody: "The workload runs nowhere.",
  };

  function outcome() {
    const { result, total_us: total, downtime_us: downtime, verify, runs_on: runsOn } = report;
    const where = RUNS_ON[runsOn] ?? "Whether and where the workload runs is not known.";
    const wrong = verify?.corrupt ? `${plural(verify.corrupt, "page is", "pages are")} wrong.` : "";
    const { faults, oldest_us: oldest } = report.waiting ?? {};
    const waiting = faults
      ? `${plural(faults, "fault waits", "faults wait")}, the oldest for ${duration(oldest)}.`
      : "";
    const words = {
      completed: `The workload has moved in ${duration(total)}, and ran nowhere for ${duration(downtime)}.`,
      failed: `The migration failed. ${where}`,
      cancelled: `The migration was cancelled. ${where}`,
      paused: `The link broke, and pages are missing. ${where}`,
    };
    if (isRestore) {
      words.completed = report.runs_on === "destination"
        ? `The guest has all of its pages after ${duration(total)}, and needs its server no more.`
        : `The guest has ended after ${duration(total)}.`;
      words.failed = "The guest was lost.";
    }
    const tones = { completed: "good", failed: "bad", cancelled: "warn", paused: "bad" };
    byId("verdict").dataset.tone = wrong ? "bad" : (tones[result] ?? "run");
    say(byId("verdict-text"), words[result] ?? `The result is ${result}. ${where}`);
    const reason = [wrong, waiting, report.error].filter(Boolean).join("\n");
    byId("verdict-reason").hidden = !reason;
    say(byId("verdict-reason"), reason);

    const name = report.workload?.name;
    const what = isRestore ? "guest" : "workload";
    say(byId("subtitle"), [name ? `${what} ${name}` : "", bytes(report.memory_bytes)].filter(Boolean).join(", "));
    const heading = isRestore ? "Restore report" : "Migration report";
    say(byId("title"), heading);
    document.title = `${heading}${name ? ` of ${name}` : ""} – Pageferry`;
    say(byId("schema"), `Format ${report.schema}. Durations are measured by the clock of the side that they concern.`);

    const { pages, stall_us: stall, throughput_mib_s: throughput } = report;
    const arrived = arrivedPages();
    const list = [
      ["Total", duration(total), "from the beginning to the end"],
      ["Downtime", downtime ? duration(downtime) : NONE, downtime ? "the workload ran nowhere" : "no switchover"],
      ["Memory", bytes(report.memory_bytes), `${count(pages.total)} pages of ${bytes(report.page_size)}`],
      ["Arrived", percent(arrived, pages.total), `${count(arrived)} pages`],
      ["Throughput", throughput ? rate(throughput * 1048576) : NONE, "from the permission to the last page"],
    ];
    if (stall?.count) {
      list.push(["Stall p99", duration(stall.p99), `median ${duration(stall.p50)}`]);
      if (floorSum()) list.push(["Floor", duration(floorSum()), "round trip and local fault"]);
    }
    const notOfRestore = new Set(["Downtime", "Throughput"]);
    figures(byId("figures"), isRestore ? list.filter(([name]) => !notOfRestore.has(name)) : list);
  }

  // Both sides on one clock

  const KIND_OF_STATE = {
    none: "ended",
    setup: "before",
    active: "before",
    "pre-switchover": "stopped",
    device: "stopped",
    "postcopy-device": "stopped",
    "postcopy-active": "after",
    "postcopy-paused": "broken",
    "postcopy-recover-setup": "broken",
    "postcopy-recover": "broken",
    cancelling: "broken",
  };
  const KEYS = [
    ["before", "before the switchover"], ["stopped", "the workload is stopped"], [
      "after",
      "the workload was handed over",
    ],
    ["broken", "the link is broken, or a cancel waits"], ["ended", "ended"],
  ];

  /** Two rows of states over time. `data`: `{rows: [{name, states}], from, to}`. */
  function clock({ rows, from, to, label }, width) {
    const [left, right, rowHeight] = [2, 2, 62];
    const height = rows.length * rowHeight + 30;
    const x = (us) => left + Math.min(1, Math.max(0, (us - from) / (to - from || 1))) * (width - left - right);
    const nodes = [];
    const ticks = linearTicks(to - from, width < 480 ? 4 : 6).map((tick) => from + tick).filter((tick) => tick <= to);
    ticks.forEach((tick, i) => {
      nodes.push(line(x(tick), 0, x(tick), height - 24, { class: "grid" }));
      const anchor = i === 0 ? "start" : x(tick) > width - 30 ? "end" : "middle";
      const name = tick !== 0 && to - from > 5e6 ? `+${short(tick)}` : after(tick);
      nodes.push(text(x(tick), height - 8, name, { "text-anchor": anchor }));
    });
    rows.forEach(({ name, states }, row) => {
      const top = row * rowHeight;
      nodes.push(text(left, top + 14, name, { class: "strong" }));
      let free = -Infinity;
      states.forEach(({ state, at_us: at }, i) => {
        const end = states[i + 1]?.at_us ?? Infinity;
        if (end < from || at > to) return;
        const [a, b] = [x(at), x(Math.min(end, to))];
        const kind = KIND_OF_STATE[state] ?? "ended";
        nodes.push(svg("rect", { class: `span ${kind}`, x: a, y: top + 21, width: Math.max(2, b - a), height: 14 }));
        const room = state.length * 6.4;
        // A name may leave a short span to the right, unless it then stands under the next one.
        const place = Math.max(a + 1, free);
        const isOwn = place + room <= b || (place === a + 1 && b - a > 4);
        const next = x(states[i + 2]?.at_us ?? Infinity);
        if (!isOwn || place + room > width || (place + room > b && next - b > room && b - a < 40)) return;
        nodes.push(text(place, top + 49, state, { class: "name" }));
        free = place + room + 10;
      });
    });
    return picture(width, height, label, nodes);
  }

  function timeline() {
    const { timeline: times, source, destination } = report;
    if (!times?.source?.length && !times?.destination?.length) {
      const path = (name, states) =>
        element(
          "div",
          null,
          element("h3", null, name),
          element(
            "ol",
            { class: "path" },
            ...(states?.length ? states : ["none"]).map((state) => element("li", null, state)),
          ),
        );
      return panel(
        "States of both sides",
        "In their order; this report has no times of states",
        path("Source", source?.states),
        path("Destination", destination?.states),
      );
    }
    const rows = [
      { name: "Source", states: times.source ?? [] },
      { name: "Destination", states: times.destination ?? [] },
    ];
    const all = rows.flatMap(({ states }) => states.map(({ at_us: at }) => at));
    const to = Math.max(report.total_us ?? 0, ...all) * 1.02 || 1;
    const stopped = rows[0].states.find(({ state }) => ["pre-switchover", "device"].includes(state))?.at_us;
    const started = rows[1].states.find(({ state }) => state === "postcopy-active")?.at_us;
    const children = [
      drawing(
        {
          rows,
          from: Math.min(0, ...all),
          to,
          label: "States of both sides over the whole migration. The table below has every time.",
        },
        clock,
      ),
    ];
    if (known(stopped) && known(started) && started > stopped && started - stopped < to * 0.4) {
      const pad = (started - stopped) * 0.35;
      children.push(
        element("h3", null, `The switchover alone, ${duration(started - stopped + 2 * pad)} of the above`),
        drawing(
          {
            rows,
            from: stopped - pad,
            to: started + pad,
            label: "States of both sides around the switchover. The table below has every time.",
          },
          clock,
        ),
      );
    }
    const used = new Set(rows.flatMap(({ states }) => states.map(({ state }) => KIND_OF_STATE[state] ?? "ended")));
    const box = (kind) => svg(
      "svg",
      { width: 18, height: 14, class: "chart", "aria-hidden": "true" },
      svg("rect", { width: 18, height: 14, class: `span ${kind}` }),
    );
    children.push(
      element(
        "ul",
        { class: "key" },
        ...KEYS.filter(([kind]) => used.has(kind)).map(([kind, name]) => element("li", null, box(kind), name)),
      ),
      disclosure(
        "Every state as a table",
        table(
          null,
          [["Time", true], ["Side"], ["State"]],
          rows
            .flatMap(({ name, states }) => states.map(({ state, at_us: at }) => [at, name, state]))
            .sort((a, b) => a[0] - b[0])
            .map(([at, name, state]) => [after(at), name, state]),
        ),
      ),
    );
    const error = times.error_us
      ? `The destination's times may be wrong by ${duration(times.error_us)}`
      : "On the clock of the source";
    return panel("States of both sides", error, ...children);
  }

  // Downtime

  function downtime() {
    const { switchover_us: switchover, downtime_us: time } = report;
    if (!time) return panel("Downtime", null, note("There was no switchover."));
    const sum = Object.values(switchover).reduce((total, part) => total + part, 0);
    return panel(
      "Downtime",
      `${duration(time)} from the source's last operation to the end of the destination's first`,
      waterfall(switchover, null),
      note(
        `The parts add up to ${duration(sum)}. The sum may exceed the downtime: stop begins while the last operation ` +
          "still runs, and half of grant is the way back of the answer.",
      ),
    );
  }

  // Stalls

  /** The points of the distribution: from the histogram if the report has one, else from the percentiles. */
  function points(distribution, buckets, perOctave) {
    if (buckets?.length) {
      const total = buckets.reduce((sum, [, n]) => sum + n, 0);
      let sum = 0;
      const out = [[bucketLow(buckets[0][0], perOctave), 0]];
      for (const [upper, n] of buckets) {
        sum += n;
        out.push([Math.min(upper, distribution.max || upper), sum / total]);
      }
      return out;
    }
    const { p50, p90, p99, p999, max } = distribution;
    return [[p50, 0.5], [p90, 0.9], [p99, 0.99], [p999, 0.999], [max, 1]].filter(([us]) => us > 0);
  }

  function stalls() {
    const { stall_us: stall, service_us: service, stall_origin: origin, histogram: given } = report;
    const perOctave = given?.per_octave ?? 1;
    const isStall = stall?.count > 0;
    const distribution = isStall ? stall : service;
    const what = isStall ? "stalls" : "faults";
    if (!distribution?.count) return [panel("Stalls", null, note("No thread waited for a page."))];
    const origins = {
      accesses: "Each thread of the workload measured its accesses to absent pages.",
      faults: "The agent measured the fault of each thread, and added the median of a local fault.",
    };
    const origin_ = isStall
      ? (origins[origin] ?? "")
      : "The waits of the threads could not be measured: the times are those from reading a fault to placing its page.";
    const buckets = (isStall ? given?.stall : given?.service)?.filter(([upper, n]) => upper > 0 && n > 0);
    const floor = floorSum();
    const percentiles = [
      ["mean", "mean"],
      ["p50", "p50"],
      ["p90", "p90"],
      ["p99", "p99"],
      ["p99.9", "p999"],
      ["longest", "max"],
      ["sum of all", "total"],
    ];
    const line_ = { points: points(distribution, buckets, perOctave), floor, label:
        `Share of ${what} that took at most a time: half within ${duration(distribution.p50)}, ` +
        `99 % within ${duration(distribution.p99)}, all within ${duration(distribution.max)}. ` +
        `The floor is ${duration(floor)}.`,
    };
    const both = table(
      origin_,
      [[""], ["Stall", true], ["Service", true]],
      [
        ["count", count(stall?.count), count(service?.count)],
        ...percentiles.map(([name, key]) => [name, duration(stall?.[key]), duration(service?.[key])]),
      ],
    );
    both.tHead.rows[0].cells[0].textContent = "Value";
    const floors = table(
      "What this machine and network cost by themselves",
      [["Floor"], ["Median", true]],
      [
        ["round trip of 4 KiB", duration(report.floor_us?.round_trip_p50)],
        ["local fault", duration(report.floor_us?.local_fault_p50)],
        ["both", duration(floor)],
      ],
    );
    const bars = buckets?.length
      ? panel(
          isStall ? "Stalls by length" : "Faults by length",
          `${count(distribution.count)} ${what}, on logarithmic axes`,
          drawing(
            {
              buckets,
              perOctave,
              floor,
              label: `Histogram of ${count(distribution.count)} ${what}. The floor is ${duration(floor)}.`,
            },
            histogram,
          ),
          disclosure(
            "Lengths as a table",
            table(
              null,
              [["From", true], ["To", true], ["Count", true]],
              buckets.map(([upper, n]) => [duration(bucketLow(upper, perOctave)), duration(upper), count(n)]),
            ),
          ),
        )
      : null;
    const curve = line_.points.length > 1
      ? panel(
          isStall ? "Share of stalls within a time" : "Share of faults within a time",
          buckets?.length ? "On an axis of nines" : "From the percentiles; this report has no histogram",
          drawing(line_, nines),
        )
      : null;
    return [columns(bars, curve), panel("Stalls and service", null, columns(both, floors))];
  }

  // Memory

  function pagesPart() {
    const { pages } = report;
    const missing = Math.max(0, pages.total - arrivedPages());
    const rows = [2, 3, 4, 5, 0].map((kind) => [kind, kind === 0 ? missing : pages[KINDS[kind].key]]);
    const canvas = element("canvas", { class: "share-bar", width: 1600, height: 28, "aria-hidden": "true" });
    const draw = () => {
      const context = canvas.getContext("2d");
      let x = 0;
      for (const [kind, n] of rows) {
        const wide = pages.total ? (1600 * n) / pages.total : 0;
        context.fillStyle = kindFill(context, kind);
        context.fillRect(x, 0, n ? Math.max(2, wide) : 0, 28);
        x += wide;
      }
    };
    draw();
    themeChanged.push(draw);
    const list = table(
      null,
      [["Kind"], ["Meaning"], ["Pages", true], ["Share", true]],
      rows.map(([kind, n]) => [KINDS[kind].name, KINDS[kind].says, count(n), percent(n, pages.total)]),
    );
    list.classList.add("kinds");
    rows.forEach(([kind], i) => list.tBodies[0].rows[i].cells[0].prepend(swatch(kind)));
    return panel(
      "Pages by how they came",
      `${count(pages.total)} pages`,
      canvas,
      list,
      note(
        `${plural(pages.prefetched_unused, "prefetched page was", "prefetched pages were")} not seen to be used. ` +
          `${plural(pages.duplicate, "page", "pages")} arrived a second time, beside those above.`,
      ),
    );
  }

  /** The fifth of the time, from 0, in which half of a cell's pages had arrived; nothing if they have not. */
  const fifth = (at, last) => (known(at) ? Math.min(4, Math.floor((at / last) * 5)) : null);

  /** Cells in rows, each in the colour of its fifth of the time. `data`: `{times, last, bounds, label}`. */
  function cellTimes({ times, last, bounds, label }, width) {
    const size = Math.max(4, Math.min(28, Math.floor(Math.sqrt((width * 300) / times.length))));
    const columns_ = Math.max(1, Math.min(times.length, Math.floor(width / size)));
    const gap = size >= 6 ? 1 : 0;
    const nodes = times.map((at, cell) => {
      const when = known(at) ? `half arrived by +${duration(at * 1000)}` : "less than half arrived";
      const [x, y, part] = [(cell % columns_) * size, Math.floor(cell / columns_) * size, fifth(at, last)];
      return svg(
        "rect",
        { class: part === null ? "missing" : `fifth-${part}`, x, y, width: size - gap, height: size - gap },
        svg("title", null, `Cell ${count(cell + 1)}: ${when}`),
      );
    });
    for (const cell of bounds) {
      const [x, y] = [(cell % columns_) * size, Math.floor(cell / columns_) * size];
      nodes.push(line(x, y, x, y + size, { class: "mark" }));
    }
    return picture(width, Math.ceil(times.length / columns_) * size, label, nodes);
  }

  function arrivals() {
    const { arrivals: of } = report;
    const times = of?.at_ms ?? [];
    if (!times.length) return null;
    const there = times.filter(known);
    const last = Math.max(1, ...there);
    const bounds = (of.regions ?? []).slice(1).map((region) => region.first_cell);
    const rows = [0, 1, 2, 3, 4].map((part) => [
      duration(last * 200 * part), duration(last * 200 * (part + 1)),
      count(there.filter((at) => fifth(at, last) === part).length),
    ]);
    const key = element(
      "ul",
      { class: "key" },
      ...rows.map(([from, to], part) =>
        element("li", null, svg("svg", { class: "chart", width: 18, height: 18, "aria-hidden": "true" },
          svg("rect", { class: `fifth-${part}`, width: 18, height: 18 })), `${from} to ${to}`)),
    );
    rows.push(["never", "", count(times.length - there.length)]);
    const label = `${count(there.length)} of ${count(times.length)} cells of memory had half of their pages within ` +
      `${duration(last * 1000)}. The table below has the numbers of cells by time.`;
    const sizes = [...new Set((of.regions ?? []).map((region) => region.page_size))];
    const each = sizes.length === 1
      ? bytes(of.pages_per_cell * sizes[0])
      : plural(of.pages_per_cell, "page", "pages");
    return panel(
      "Memory by time of arrival",
      `${count(times.length)} cells of ${each}, in the order of addresses`,
      drawing({ times, last, bounds, label }, cellTimes),
      key,
      note("A cell has the time by which half of its pages had arrived, since the permission to start."),
      disclosure("Arrivals as a table", table(null, [["From", true], ["To", true], ["Cells", true]], rows)),
    );
  }

  // The rest

  function lanes() {
    const { push_lanes: pushed } = report;
    return panel(
      "Lanes",
      null,
      note(
        known(pushed)
          ? `The source pushed over ${plural(pushed, "connection", "connections")}.`
          : "The source does not say over how many connections it pushed.",
      ),
    );
  }

  function compression() {
    const of = report.compression;
    if (!of) return panel("Compression", null, note("The source does not say what it compressed."));
    if (!of.runs && !of.runs_unshrunk) return panel(
      "Compression",
      null,
      note(`Setting ${of.setting}: every page went as it is.`),
    );
    return panel(
      "Compression",
      of.bytes_after ? `${(of.bytes_before / of.bytes_after).toFixed(2)} to 1` : null,
      table(
        null,
        [["Value"], ["Amount", true]],
        [
          ["setting", of.setting], ["codec of the latest run", of.codec], ["before", bytes(of.bytes_before)], [
            "after",
            bytes(of.bytes_after),
          ],
          ["processor time", duration(of.cpu_us)], ["runs compressed", count(of.runs)], [
            "runs that did not shrink",
            count(of.runs_unshrunk),
          ],
          ["runs that were not tried", count(of.runs_skipped)],
        ],
      ),
    );
  }

  function verification() {
    const of = report.verify;
    if (!of?.pages_checked) return panel("Verification", null, note("No page was checked."));
    const words = of.corrupt
      ? element("p", { class: "bad" }, `${plural(of.corrupt, "page does", "pages do")} not hold what was written.`)
      : element("p", { class: "good" }, "Every checked page holds what was written.");
    const rows = [["pages checked", count(of.pages_checked)], ["wrong pages", count(of.corrupt)]];
    if (known(of.lines_total)) rows.push(
      ["lines of the file found", `${count(of.lines_found)} of ${count(of.lines_total)}`],
    );
    return panel("Verification", null, words, table(null, [["Value"], ["Amount", true]], rows));
  }

  const place = (waiting) =>
    waiting ? `page ${count(waiting.page)} of region ${waiting.region}, for ${duration(waiting.us)}` : NONE;

  function workload() {
    const { workload: of, threads } = report;
    const rows = [
      ["name", of?.name || NONE],
      ["operations on the source", count(of?.ops_source)],
      ["operations on the destination", count(of?.ops_destination)],
    ];
    if (of?.ops_after_take_back) rows.push(["operations after it was taken back", count(of.ops_after_take_back)]);
    const children = [table(null, [["Value"], ["Amount", true]], rows)];
    if (threads?.length) {
      children.push(
        disclosure(
          `${plural(threads.length, "thread", "threads")} that faulted`,
          table(
            null,
            [["Thread"], ["Stalls", true], ["Sum", true], ["Waits for"]],
            threads.map((thread) => [
              String(thread.id), count(thread.count), duration(thread.total_us),
              place(thread.waiting),
            ]),
          ),
        ),
      );
    }
    return panel("Workload", null, ...children);
  }

  if (report.schema.startsWith("pageferry.bench/")) {
    Ferry.bench(report, sections, { panel, columns, drawing, disclosure });
    return;
  }
  outcome();
  if (isRestore) {
    sections.append(...stalls(), pagesPart());
    return;
  }
  const small = columns(workload(), lanes(), compression(), verification());
  sections.append(...[timeline(), downtime(), arrivals(), ...stalls(), pagesPart(), small].filter(Boolean));
})();
