"use strict";

/** The live page: follows `api/events`, shows the state, and sends actions. */
(() => {
  const {
    KINDS, NONE, element, svg, byId, note, say, known, count, duration, short, bytes, rate, percent, clock, after,
    plural, decode64, swatch, CellMap, describeCell, Chart, timeLines, histogram, figures, table, waterfall,
  } = Ferry;
  const phone = matchMedia("(max-width: 40rem)");

  /** The state as the server has it. `guests` is a Map by the ids of guests here. */
  let state = null;
  /** What the page draws: `{changed(keys, details)}`, made for the kind of the process. */
  let view = null;

  // Announcements: only what a person must hear at once, never figures.

  let announced = "";
  function announce(words) {
    if (words === announced) return;
    announced = words;
    say(byId("announcer"), words);
  }

  // The connection

  const connection = { source: null, lostAt: 0, heardAt: 0, wait: 1000, timer: 0 };

  function setConnection(to, words) {
    byId("connection").dataset.state = to;
    say(byId("connection-text"), words);
  }

  function connect() {
    clearTimeout(connection.timer);
    connection.source?.close();
    const source = new EventSource("api/events");
    connection.source = source;
    source.addEventListener("state", (event) => {
      heard();
      receiveState(JSON.parse(event.data));
    });
    source.addEventListener("tick", (event) => {
      heard();
      if (state) receiveTick(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      lost();
      // The browser itself reconnects, unless the answer was none of a stream of events.
      if (source.readyState === EventSource.CLOSED && connection.source === source) {
        connection.timer = setTimeout(connect, connection.wait);
        connection.wait = Math.min(10_000, connection.wait * 2);
      }
    });
  }

  function heard() {
    connection.heardAt = Date.now();
    connection.wait = 1000;
    if (connection.lostAt) {
      announce("The connection is back.");
      connection.lostAt = 0;
      byId("lost").hidden = true;
    }
    setConnection("live", "Live");
  }

  function lost() {
    if (!connection.lostAt) {
      connection.lostAt = Date.now();
      const words = connection.heardAt ? "The connection to the process is lost." : "The process does not answer.";
      const shown = connection.heardAt ? `The page shows the state of ${clock(connection.heardAt)}, and` : "The page";
      say(byId("lost-text"), `${words} ${shown} retries.`);
      byId("lost").hidden = false;
      announce(words);
    }
    setConnection("lost", "Not connected");
  }

  /**
   * A link that broke without a sign is found by asking once if nothing was heard for a while. The process says
   * something every 5 s, so the stream is made anew whatever the answer is.
   */
  setInterval(async () => {
    if (connection.lostAt || !connection.heardAt || Date.now() - connection.heardAt < 15_000) return;
    try {
      const answer = await fetch("api/state", { signal: AbortSignal.timeout(4000), cache: "no-store" });
      const news = await answer.json();
      heard();
      receiveState(news);
    } catch {
      lost();
    }
    connect();
  }, 5000);

  // The state

  const asMap = (guests) => new Map(guests.map((guest) => [guest.id, guest]));

  function receiveState(news) {
    const isOtherKind = news.kind !== state?.kind;
    if (news.guests) news.guests = asMap(news.guests);
    if (news.map) news.map.bytes = decode64(news.map.counts);
    news.events ??= [];
    state = news;
    if (isOtherKind || !view) {
      if (!byId(state.kind)) return;
      const parts = ["first", state.kind, "last"].map((id) => byId(id).content.cloneNode(true));
      byId("main").replaceChildren(...parts);
      view = { agent: agentView, handler: handlerView, server: serverView }[state.kind]();
    }
    showIdentity();
    later(new Set([...Object.keys(state), "*"]), { cells: null, events: null });
  }

  function receiveTick(tick) {
    const details = { cells: [], events: [] };
    for (const [key, value] of Object.entries(tick)) {
      if (key === "map" && value?.from && state.map) {
        const shares = decode64(value.counts);
        value.from.forEach((cell, i) => state.map.bytes.set(shares.subarray(i * 6, i * 6 + 6), cell * 6));
        details.cells = value.from;
      } else if (key === "map") {
        // Null once the memory is freed.
        if (value) value.bytes = decode64(value.counts);
        state.map = value;
        details.cells = null;
      } else if (key === "events") {
        state.events = state.events.concat(value).slice(-200);
        details.events = value;
      } else if (key === "guests" && state.guests) {
        for (const guest of value) {
          if (guest.gone) state.guests.delete(guest.id);
          else state.guests.set(guest.id, { ...state.guests.get(guest.id), ...guest });
        }
      } else if (key === "migration" && value && state.migration) {
        state.migration = { ...state.migration, ...value };
      } else {
        state[key] = value;
      }
    }
    later(new Set(Object.keys(tick)), details);
  }

  /** Draws at the next frame, once for all that arrived until then. */
  let pending = null;
  function later(keys, details) {
    if (pending) {
      for (const key of keys) pending.keys.add(key);
      const merge = (a, b) => (a === null || b === null ? null : a.concat(b));
      pending.details.cells = merge(pending.details.cells, details.cells);
      pending.details.events = merge(pending.details.events, details.events);
      return;
    }
    pending = { keys, details };
    requestAnimationFrame(() => {
      const { keys, details } = pending;
      pending = null;
      view?.changed(keys, details);
      // A mark for measurements of how soon the page shows something.
      if (keys.has("*")) performance.mark("drawn");
    });
  }

  const KIND_NAMES = { agent: "agent", handler: "page fault handler", server: "snapshot server" };

  function showIdentity() {
    const role = state.migration?.role;
    const kind = role && role !== "none" ? `agent, ${role}` : KIND_NAMES[state.kind];
    say(byId("name"), state.name || KIND_NAMES[state.kind]);
    say(byId("kind"), kind);
    say(byId("release"), `Pageferry ${state.release ?? ""}`);
    document.title = `${state.name || KIND_NAMES[state.kind]} – Pageferry`;
  }

  // Parts that several kinds have

  function verdict({ words, reason = "", tone = "run" }) {
    byId("verdict").dataset.tone = tone;
    const sides = state.migration?.sides ?? [];
    byId("verdict-sides").hidden = sides.length === 0;
    say(
      byId("verdict-sides"),
      sides
        .filter((side) => side.states.length)
        .map((side) => `${side.side} ${side.states.at(-1).state}${side.own ? "" : " (as far as this agent knows)"}`)
        .join(" · "),
    );
    say(byId("verdict-text"), words);
    byId("verdict-reason").hidden = !reason;
    say(byId("verdict-reason"), reason);
  }

  function eventsPart() {
    const list = byId("events");
    const item = (event) =>
      element(
        "li",
        { "data-level": event.level },
        element("time", { datetime: new Date(event.unix_ms).toISOString() }, clock(event.unix_ms)),
        element("span", { class: "level" }, event.level),
        element("span", null, event.text),
      );
    return (details) => {
      if (details.events === null) {
        list.replaceChildren(...state.events.map(item).reverse());
        if (!state.events.length) list.append(element("li", null, "No events yet."));
      } else if (details.events.length) {
        if (state.events.length === details.events.length) list.replaceChildren();
        for (const event of details.events) list.prepend(item(event));
        while (list.children.length > 200) list.lastElementChild.remove();
      }
    };
  }

  /** Values over the last ten minutes. */
  class History {
    constructor() {
      this.times = [];
      this.rows = [];
    }

    push(row) {
      const now = state.unix_ms ?? Date.now();
      if (this.times.length && now <= this.times.at(-1)) return;
      this.times.push(now);
      this.rows.push(row);
      if (this.times.length > 1200) {
        this.times.splice(0, 100);
        this.rows.splice(0, 100);
      }
    }

    column(key) {
      return this.rows.map((row) => row?.[key]);
    }
  }

  // The machine of a side

  const MAIN = [
    "none",
    "setup",
    "active",
    "pre-switchover",
    "device",
    "postcopy-device",
    "postcopy-active",
    "completed",
  ];
  const LOOP = ["postcopy-paused", "postcopy-recover-setup", "postcopy-recover"];
  const RAILS = ["cancelled", "failed"];
  const TONES = {
    failed: "bad", cancelled: "warn", cancelling: "warn", "postcopy-paused": "warn",
    "postcopy-recover-setup": "warn", "postcopy-recover": "warn", completed: "good",
  };
  const ENDS = ["none", "completed", "failed", "cancelled"];

  /** The states of the usual course, and those that this page does not know. */
  const rowOf = (possible) => [
    ...MAIN.filter((name) => possible.includes(name)),
    ...possible.filter((name) => ![...MAIN, ...LOOP, ...RAILS, "cancelling"].includes(name)),
  ];

  /**
   * Places the states: the usual course in a row, the loop of a broken link below, and the two other ends as rails
   * along the row. `u` runs along the row and `v` across, so that the same drawing also stands upright.
   */
  function placeStates(possible, row, { pitch, hu, hv, mainAt, sideAt, railAt, start }) {
    const places = new Map();
    row.forEach((name, i) => {
      if (possible.includes(name)) places.set(name, { u: start + i * pitch, v: mainAt, hu, hv, kind: "main", i });
    });
    const loopAt = Math.max(row.indexOf("postcopy-active"), 2);
    LOOP.filter((name) => possible.includes(name)).forEach((name, i) => {
      places.set(name, { u: start + (loopAt + 0.5 - i) * pitch, v: sideAt, hu, hv, kind: "side", i: loopAt - i });
    });
    if (possible.includes("cancelling")) {
      places.set("cancelling", {
        u: start + (loopAt + 1.5) * pitch, v: sideAt, hu, hv, kind: "side", i: loopAt + 1,
      });
    }
    const last = Math.max(...[...places.values()].map((place) => place.u));
    for (const name of RAILS) {
      if (!possible.includes(name)) continue;
      const length = last - start + 2 * hu;
      places.set(name, { u: start - hu + length / 2, v: railAt[name], hu: length / 2, hv: 12, kind: "rail", name });
    }
    return { places, end: last + hu };
  }

  /** The way of an edge as commands in `u` and `v`. */
  function edgeWay(a, b, back, isBetween) {
    if (b.kind === "rail") {
      const side = b.v < a.v ? -1 : 1;
      return [["M", a.u, a.v + side * a.hv], ["L", a.u, b.v - side * b.hv]];
    }
    if (a.kind === "rail") {
      const side = b.v < a.v ? -1 : 1;
      return [["M", b.u + 12, a.v + side * a.hv], ["L", b.u + 12, b.v - side * b.hv]];
    }
    const way = Math.sign(b.u - a.u) || 1;
    if (a.kind === b.kind && !isBetween && (a.kind === "side" || way > 0)) {
      const v = a.v + (back ? way * 6 : 0);
      return [["M", a.u + way * a.hu, v], ["L", b.u - way * b.hu, v]];
    }
    if (a.kind === b.kind) {
      const side = a.kind === "main" ? -1 : 1;
      const [from, to] = [a.u + way * a.hu * 0.5, b.u - way * b.hu * 0.5];
      const [v, bow] = [a.v + side * a.hv, side * 20];
      return [["M", from, v], ["C", from + way * 8, v + bow, to - way * 8, v + bow, to, v]];
    }
    // Between the row and the loop. The ports of the row's state lie in the order of the states that they lead to.
    const shift = back ? (a.kind === "main" ? 4 : -4) : 0;
    const port = (main, side) => {
      const far = Math.max(-0.8, Math.min(0.8, (side.u - main.u) / (2.2 * main.hu * 1.3)));
      return main.u + far * main.hu + shift;
    };
    const dock = (side, main) => side.u + Math.sign(main.u - side.u) * side.hu * 0.45 + shift;
    const down = a.kind === "main";
    const [from, to] = down ? [port(a, b), dock(b, a)] : [dock(a, b), port(b, a)];
    const [v1, v2] = down ? [a.v + a.hv, b.v - b.hv] : [a.v - a.hv, b.v + b.hv];
    return [["M", from, v1], ["C", from, (v1 + v2) / 2, to, (v1 + v2) / 2, to, v2]];
  }

  /** Breaks a long name at the hyphen that leaves the shortest lines. */
  function breakName(name, room) {
    if (name.length * 6.5 <= room) return [name];
    let best = [name];
    for (let at = name.indexOf("-"); at > 0; at = name.indexOf("-", at + 1)) {
      const parts = [name.slice(0, at + 1), name.slice(at + 1)];
      const longest = (lines) => Math.max(...lines.map((l) => l.length));
      if (longest(parts) < longest(best)) best = parts;
    }
    return best;
  }

  class Machine {
    constructor(host, side) {
      this.side = side;
      this.title = element("h3", null);
      this.note = note("");
      this.place = element("div");
      this.path = element("ol", { class: "path" });
      host.append(element("section", { class: "machine" }, this.title, this.note, this.place, this.path));
      new ResizeObserver(() => {
        if (this.data && this.place.clientWidth !== this.width) this.draw(this.data);
      }).observe(this.place);
    }

    /** `together` are the states of both sides: equal states of the two stand in one column. */
    show(side, possible, edges, together) {
      const data = { side, possible, edges, together };
      const key = JSON.stringify(data);
      if (key === this.key) return;
      this.key = key;
      this.draw(data);
    }

    draw(data) {
      this.data = data;
      const { side, possible, edges, together } = data;
      const name = side.side === "source" ? "Source" : "Destination";
      const states = side.states ?? [];
      // Without a migration, both sides are in the state none; else an agent may not know the other side.
      const isUnknown = !states.length && !side.own && state.migration?.role !== "none";
      const now = isUnknown ? null : (states.at(-1)?.state ?? "none");
      say(this.title, `${name}: ${now ?? "not known"}`);
      const whose = side.own ? "This agent" : "The other side, as far as this agent knows";
      say(this.note, state.migration?.role === "none" ? "No migration" : whose);
      this.path.setAttribute("aria-label", `States that the ${name.toLowerCase()} has passed, with the time in each`);
      this.path.replaceChildren(
        ...states.map(({ state: passed, at_us: at }, i) => {
          const end = states[i + 1]?.at_us;
          const time = known(at) && known(end) ? ` ${duration(end - at)}` : "";
          return element("li", null, element("b", null, passed), time);
        }),
      );
      this.width = this.place.clientWidth;
      if (this.width < 200) return;
      this.place.replaceChildren(this.#picture(name, states, now, possible, edges, together));
    }

    #picture(name, states, now, possible, edges, together) {
      const columns = rowOf(together).length + (together.includes("cancelling") ? 0.5 : 0);
      const isUpright = this.width / columns < 106;
      const pitch = isUpright ? 62 : Math.min(150, (this.width - 4) / columns);
      const box = isUpright
        ? { pitch, hu: 20, hv: Math.min(60, (this.width - 104) / 4), start: 22 }
        : { pitch, hu: Math.min(60, pitch / 2 - 12), hv: 22, start: Math.min(60, pitch / 2 - 12) + 2 };
      if (isUpright) {
        const right = Math.min(this.width, 400);
        Object.assign(box, {
          railAt: { cancelled: 13, failed: right - 13 }, mainAt: 42 + box.hv, sideAt: right - 42 - box.hv,
        });
      } else {
        Object.assign(box, { railAt: { cancelled: 13, failed: 236 }, mainAt: 80, sideAt: 172 });
      }
      const { places, end } = placeStates(possible, rowOf(isUpright ? possible : together), box);
      const at = (u, v) => (isUpright ? [v, u] : [u, v]).map((x) => x.toFixed(1)).join(" ");
      const width = isUpright ? Math.min(this.width, 400) : end + 2;
      const height = isUpright ? end + 2 : 250;

      const taken = new Set();
      for (let i = 1; i < states.length; i += 1) taken.add(`${states[i - 1].state}>${states[i].state}`);
      const all = edges.map(([from, to]) => `${from}>${to}`);
      const isBack = (key) => all.includes(key.split(">").reverse().join(">"));
      const drawn = [
        ...all.filter((key) => !taken.has(key)),
        ...[...taken].filter((key) => !key.startsWith("none>none")),
      ];
      const lines = drawn.map((key) => {
        const [from, to] = key.split(">").map((state) => places.get(state));
        if (!from || !to || from === to) return null;
        const isBetween = [...places.values()].some(
          (place) => place.kind === from.kind && (place.i - from.i) * (place.i - to.i) < 0,
        );
        const way = edgeWay(from, to, isBack(key), isBetween);
        const kind = taken.has(key) ? " taken" : "";
        const [last, before] = [way.at(-1), way.at(-2)];
        const tip = last.slice(-2);
        const tail = last[0] === "C" ? last.slice(-4, -2) : before.slice(-2);
        return svg(
          "g",
          null,
          svg("path", { class: `edge${kind}`, d: wayPath(way, at) }),
          arrowHead(tail, tip, at, kind),
        );
      });

      const lastVisit = new Map();
      const visits = new Map();
      for (const { state: passed, at_us: time } of states) {
        lastVisit.set(passed, time);
        visits.set(passed, (visits.get(passed) ?? 0) + 1);
      }
      const nodes = [...places].map(([state, place]) => {
        const isNow = state === now;
        const tone = isNow ? ` now ${TONES[state] ?? ""}${ENDS.includes(state) ? "" : " busy"}` : "";
        const group = svg("g", { class: `state${visits.has(state) ? " passed" : ""}${tone}` });
        const [hx, hy] = isUpright ? [place.hv, place.hu] : [place.hu, place.hv];
        const [x, y] = isUpright ? [place.v, place.u] : [place.u, place.v];
        const rect = (grow, kind) =>
          svg("rect", {
            class: kind,
            rx: 5 + grow,
            x: x - hx - grow,
            y: y - hy - grow,
            width: 2 * (hx + grow),
            height: 2 * (hy + grow),
          });
        if (isNow) group.append(rect(4, "halo"));
        group.append(rect(0));
        const isTurned = place.kind === "rail" && isUpright;
        const words = place.kind === "rail" ? [state] : breakName(state, 2 * hx - 8);
        const time = visits.has(state) && known(lastVisit.get(state))
          ? timeOf(lastVisit.get(state), visits.get(state))
          : null;
        if (place.kind === "rail" && time) words[0] += `  ${time}`;
        const rows = words.map((word) => [word, null]);
        if (time && place.kind !== "rail") rows.push([time, "time"]);
        const step = 13;
        rows.forEach(([row, kind], i) => {
          const ty = y + 4 + (i - (rows.length - 1) / 2) * step;
          const turn = isTurned ? `rotate(-90 ${x} ${y})` : null;
          group.append(svg("text", { x, y: ty, class: kind, transform: turn }, row));
        });
        return group;
      });
      const path = states.map(({ state: passed }) => passed).join(", ");
      return svg(
        "svg",
        {
          width,
          height,
          viewBox: `0 0 ${width} ${height}`,
          role: "img",
          "aria-label": `${name}: now ${now ?? "not known"}. Passed: ${path || "none"}. ${this.note.textContent}.`,
        },
        ...lines,
        ...nodes,
      );
    }
  }

  const timeOf = (time, visits) => after(time) + (visits > 1 ? ` ×${visits}` : "");

  const wayPath = (way, at) =>
    way.map(([command, ...numbers]) => {
      const points = [];
      for (let i = 0; i < numbers.length; i += 2) points.push(at(numbers[i], numbers[i + 1]));
      return command + points.join(" ");
    }).join("");

  function arrowHead([u0, v0], [u, v], at, kind) {
    const length = Math.hypot(u - u0, v - v0) || 1;
    const [du, dv] = [(u - u0) / length, (v - v0) / length];
    const [long, wide] = kind ? [9, 4.5] : [7, 3];
    const left = at(u - du * long - dv * wide, v - dv * long + du * wide);
    const right = at(u - du * long + dv * wide, v - dv * long - du * wide);
    return svg("path", { class: `head${kind}`, d: `M${at(u, v)}L${left}L${right}Z` });
  }

  // An agent

  function agentVerdict() {
    const migration = state.migration ?? { role: "none" };
    const { role, workload } = migration;
    const own = migration.sides?.find((side) => side.own);
    const now = own?.states?.at(-1)?.state ?? "none";
    const name = workload ? `The workload ${workload}` : "The workload";
    const where = migration.runs_here ? `${name} runs here.` : `${name} does not run here.`;
    const share = percent(state.pages?.resident, state.pages?.total);
    const come = role === "source" ? "been sent" : "arrived";
    const waiting = state.pages?.waiting ?? 0;
    // A short wait is usual, and a line that comes and goes would move the page.
    const waits = waiting && state.pages.oldest_us > 100_000
      ? `${plural(waiting, "fault waits", "faults wait")}, the oldest for ${duration(state.pages.oldest_us)}.`
      : "";
    const reason = [waits, migration.error].filter(Boolean).join("\n");
    if (migration.awaits_cont) {
      return {
        words: "Everything is ready. The workload starts when an operator says cont.",
        reason: migration.error,
        tone: "warn",
      };
    }
    switch (now) {
      case "none":
        if (role === "destination") return { words: "The agent waits for a source.", tone: "run" };
        return {
          words: `${where} There is no migration.`,
          reason: migration.error,
          tone: migration.runs_here ? "good" : "run",
        };
      case "setup":
        return role === "source"
          ? { words: `${where} The two sides connect.`, reason, tone: "run" }
          : { words: "The agent waits for a source, or prepares memory for it.", reason, tone: "run" };
      case "active":
        return role === "source"
          ? { words: `${where} The destination is ready.`, reason, tone: "run" }
          : { words: "Memory is ready. The workload runs at the source.", reason, tone: "run" };
      case "pre-switchover":
        return { words: "The workload is stopped and waits for migrate-continue.", reason, tone: "warn" };
      case "device":
      case "postcopy-device":
        return { words: "The workload is stopped, and its devices move.", reason, tone: "run" };
      case "postcopy-active":
        return {
          words: `${name} ${role === "source" ? "was handed over" : "runs here"}. ${share} of its memory has ${come}.`,
          reason,
          tone: "run",
        };
      case "postcopy-paused":
        return { words: `The link is broken. ${where} ${share} of its memory has ${come}.`, reason, tone: "bad" };
      case "postcopy-recover-setup":
      case "postcopy-recover":
        return { words: `The link is being restored. ${where}`, reason, tone: "warn" };
      case "cancelling":
        return { words: "A cancel waits for the destination's answer.", reason, tone: "warn" };
      case "cancelled":
        return { words: `The migration was cancelled. ${where}`, reason, tone: "warn" };
      case "failed":
        return { words: `The migration failed. ${where}`, reason, tone: "bad" };
      case "completed":
        return role === "source"
          ? { words: `${name} and all its memory are on the destination.`, reason, tone: "good" }
          : { words: `${name} runs here, and all its memory has arrived.`, reason, tone: "good" };
      default:
        return { words: `The state is ${now}. ${where}`, reason, tone: "run" };
    }
  }

  const AGENT_ACTIONS = [
    {
      key: "cancel", word: "Cancel", name: "Cancel the migration", confirm: "Cancel the migration",
      when: (now) => !["none", "completed", "failed", "cancelled", "cancelling"].includes(now),
      text: "The source takes the workload back, unless the destination has already committed to start it.",
    },
    {
      key: "pause", word: "Pause", name: "Pause the migration", confirm: "Pause the migration",
      when: (now) => now === "postcopy-active",
      text: "The agent closes the link. The workload stays where it is, and waits at missing pages until a recover.",
    },
    {
      key: "recover", word: "Recover", name: "Recover the migration", confirm: "Recover the migration",
      when: (now) => now === "postcopy-paused",
      text: "The two sides make a new link at this address and continue with the missing pages.",
      input: { name: "Address", placeholder: "tcp:HOST:PORT", body: (text) => ({ uri: text }) },
    },
    {
      key: "cont", word: "Start", name: "Start the workload", confirm: "Start the workload",
      when: (now, migration) => migration.awaits_cont === true || (
        migration.role === "destination" && now === "postcopy-device"
      ),
      text: "The destination starts the workload. The answer says that it runs, or why it does not.",
    },
  ];

  /** The sizes of the pages of all regions, each once. */
  const pageSizes = () => [...new Set((state.map?.regions ?? []).map((region) => region.page_size))];

  /** The bytes not here, or not sent; with pages of several sizes, by the map. */
  function missingBytes() {
    const { pages, map, migration } = state;
    if (!pages?.total) return 0;
    if (pageSizes().length < 2) return (pages.total - pages.resident) * (migration.memory_bytes / pages.total);
    return map.regions.reduce((sum, region) => {
      for (let i = 0; i < region.cells; i += 1) {
        const at = (region.first_cell + i) * 6;
        const number = Math.min(map.pages_per_cell, region.pages - i * map.pages_per_cell);
        sum += ((map.bytes[at] + map.bytes[at + 1]) / 255) * number * region.page_size;
      }
      return sum;
    }, 0);
  }

  function agentView() {
    const map = new CellMap(byId("map"), {
      label: "Cell of the map of memory",
      describe: (cell) => (state.map ? describeCell(state.map, state.map.bytes, cell) : ""),
      tall: 330,
    });
    const legend = legendPart(map);
    const machines = {};
    const events = eventsPart();
    const stallHistory = new History();
    const laneHistory = new History();
    const stallChart = new Chart(byId("stall-chart"), (data, width) =>
      data.empty ? note(noStall()) : timeLines(data, width),
    );
    const lengthChart = new Chart(byId("histogram-chart"), (data, width) =>
      data.buckets.length ? histogram(data, width) : note(noStall()),
    );
    const noStall = () => (
      state.migration?.role === "source"
        ? "Only the destination sees stalls."
        : "No stall has been measured yet."
    );
    const lanes = lanesPart(laneHistory);
    for (const id of ["stall-table", "histogram-table"]) {
      byId(id).addEventListener("toggle", () => tables());
    }
    let before = null;

    function showFigures() {
      const migration = state.migration ?? {};
      const { pages, stall } = state;
      const here = pages?.resident ?? 0;
      const isSource = migration.role === "source";
      const speed = (state.lanes ?? []).reduce((sum, lane) => sum + lane.rate_bytes_per_s, 0);
      const missing = missingBytes();
      const isMoving = migration.role && migration.role !== "none";
      const list = isMoving ? [] : [["Memory", bytes(migration.memory_bytes), migration.workload ?? ""]];
      if (isMoving) list.push(["Time", duration(migration.total_us), "since the migration began"]);
      if (isMoving) list.push(
        [
          "Downtime",
          duration(migration.downtime_us),
          migration.downtime_us ? "the workload ran nowhere" : isSource ? "not known yet" : "the source measures it",
        ],
      );
      if (pages) {
        list.push(
          [
            isSource ? "Sent" : "Arrived",
            percent(here, pages.total),
            `${bytes(migration.memory_bytes - missing)} of ${bytes(migration.memory_bytes)}`,
          ],
        );
        const left = speed > 0 && missing > 0
          ? `about ${duration((missing / speed) * 1e6)} at this rate`
          : `${count(pages.total - here)} pages`;
        const none = isSource ? "every page was sent" : "every page is here";
        list.push([isSource ? "To send" : "Missing", bytes(missing), missing > 0 ? left : none]);
        list.push(["Rate", rate(speed), "all lanes"]);
        // A source does not see the faults.
        if (!isSource) list.push(
          [
            "Waiting faults",
            count(pages.waiting),
            pages.waiting ? `oldest ${duration(pages.oldest_us)}` : "no thread waits",
          ],
        );
      }
      if (stall?.count) list.push(
        [
          "Stall p99",
          duration(stall.p99_us),
          stall.floor_us ? `floor ${duration(stall.floor_us)}` : `${count(stall.count)} stalls`,
        ],
      );
      figures(byId("figures"), list);
    }

    function showMachines() {
      const { sides, possible, edges } = state.migration ?? {};
      const both = sides?.length ? sides : ["source", "destination"].map((side) => ({ side, own: false, states: [] }));
      for (const side of both) {
        if (!possible?.[side.side]) continue;
        machines[side.side] ??= new Machine(byId("machines"), side.side);
        machines[side.side].show(side, possible[side.side], edges?.[side.side] ?? [], Object.values(possible).flat());
      }
      const now = both.map((side) => `${side.side}: ${side.states.at(-1)?.state ?? "none"}`).join(", ");
      if (before !== null && before !== now) announce(
        `${now[0].toUpperCase()}${now.slice(1)}. ${byId("verdict-text").textContent}`,
      );
      before = now;
    }

    function tables() {
      const { stall } = state;
      if (byId("stall-table").open && stall) {
        const rows = [
          ["p50", stall.p50_us],
          ["p90", stall.p90_us],
          ["p99", stall.p99_us],
          ["p99.9", stall.p999_us],
          ["longest", stall.max_us],
          ["floor", stall.floor_us],
        ];
        byId("stall-table").lastElementChild.replaceChildren(
          table(
            `${count(stall.count)} stalls`,
            [["Percentile"], ["Time", true]],
            rows.map(([name, us]) => [name, duration(us)]),
          ),
        );
      }
      if (byId("histogram-table").open && stall?.histogram) {
        byId("histogram-table").lastElementChild.replaceChildren(
          table(
            "Stalls by length",
            [["From", true], ["To", true], ["Stalls", true]],
            stall.histogram.map(([upper, n]) => [duration(upper / 2), duration(upper), count(n)]),
          ),
        );
      }
    }

    function showStall() {
      const { stall } = state;
      const isEmpty = !stall?.count;
      byId("stall-table").hidden = byId("histogram-table").hidden = isEmpty;
      const series = [["p50", "p50_us"], ["p90", "p90_us"], ["p99", "p99_us"], ["p99.9", "p999_us"]];
      const now = [...series, ["floor", "floor_us"]].map(([name, key]) => `${name} ${duration(stall?.[key])}`);
      stallChart.draw({
        empty: isEmpty,
        times: stallHistory.times,
        series: series.map(([name, key]) => ({ name, values: stallHistory.column(key) })),
        log: true,
        floor: stall?.floor_us,
        format: (us) => short(us),
        label: `Stalls over time. Now: ${now.join(", ")}.`,
      });
      const buckets = stall?.histogram ?? [];
      const most = buckets.reduce((best, bucket) => (bucket[1] > (best?.[1] ?? 0) ? bucket : best), null);
      lengthChart.draw({
        buckets,
        floor: stall?.floor_us,
        label: !most
          ? ""
          : `Histogram of ${count(stall.count)} stalls. Most took between ${duration(most[0] / 2)} and ` +
            `${duration(most[0])}. The floor is ${duration(stall.floor_us)}.`,
      });
      tables();
    }

    function showSwitchover() {
      const migration = state.migration ?? {};
      const place = byId("switchover");
      const key = JSON.stringify([migration.switchover, migration.downtime_us]);
      if (place.dataset.key === key) return;
      place.dataset.key = key;
      if (!migration.switchover) {
        place.replaceChildren(note("The times are known after the switchover."));
        return;
      }
      const caption = known(migration.downtime_us) ? `Downtime ${duration(migration.downtime_us)}` : null;
      // A part that this side does not know yet took 0.
      const times = Object.fromEntries(Object.entries(migration.switchover).filter(([, us]) => us > 0));
      const missing = migration.role === "source"
        ? "Load includes the transfer, and Start the permission."
        : "The source measures the other parts.";
      place.replaceChildren(waterfall(times, caption), Object.keys(times).length < 6 ? note(missing) : "");
    }

    function changed(keys, details) {
      const isNew = keys.has("*");
      if (keys.has("migration") || isNew) showIdentity();
      verdict(agentVerdict());
      showFigures();
      if (keys.has("migration")) {
        showMachines();
        showSwitchover();
        showActions();
      }
      if (keys.has("map") || isNew) byId("map-panel").hidden = !state.map;
      if (keys.has("map") && state.map) {
        if (details.cells === null) {
          const { cells, bytes: counts, regions, pages_per_cell: perCell } = state.map;
          map.set({ cells, counts, bounds: (regions ?? []).slice(1).map((region) => region.first_cell) });
          const sizes = pageSizes();
          const each = sizes.length === 1 ? bytes(perCell * sizes[0]) : plural(perCell, "page", "pages");
          say(byId("map-scale"), `${count(cells)} cells of ${each}, in the order of addresses`);
        } else {
          map.update(details.cells);
        }
      }
      if (keys.has("pages") || isNew) legend();
      stallHistory.push(state.stall?.count ? state.stall : null);
      laneHistory.push(Object.fromEntries((state.lanes ?? []).map((lane) => [lane.name, lane.rate_bytes_per_s])));
      showStall();
      lanes();
      if (keys.has("events")) events(details);
    }

    function showActions() {
      const place = byId("actions");
      place.hidden = !state.control;
      if (!state.control) return;
      const migration = state.migration ?? {};
      const now = migration.sides?.find((side) => side.own)?.states?.at(-1)?.state ?? "none";
      const buttons = byId("action-buttons");
      if (!buttons.children.length) {
        for (const action of AGENT_ACTIONS) {
          const button = element("button", { type: "button" }, `${action.word} …`);
          button.addEventListener("click", () => ask(`api/${action.key}`, action, button));
          buttons.append(button);
        }
      }
      AGENT_ACTIONS.forEach((action, i) => {
        const cannot = !action.when(now, migration);
        if (buttons.children[i].disabled !== cannot) buttons.children[i].disabled = cannot;
        const isWanted = (action.key === "cont" && migration.awaits_cont) || (action.key === "recover" && !cannot);
        buttons.children[i].classList.toggle("primary", Boolean(isWanted));
        buttons.children[i].title = cannot ? `Not possible in the state ${now}` : action.name;
      });
    }

    return { changed };
  }

  function legendPart(map) {
    const body = byId("legend").tBodies[0];
    const cells = KINDS.map((kind, i) => {
      const button = element(
        "button",
        { type: "button", "aria-pressed": "false", title: kind.says },
        swatch(i),
        kind.name,
      );
      const numbers = [element("td", { class: "number" }), element("td", { class: "number" })];
      body.append(element("tr", null, element("th", { scope: "row" }, button), ...numbers));
      button.addEventListener("click", () => {
        const isOn = button.getAttribute("aria-pressed") === "true";
        for (const other of body.querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", String(!isOn));
        map.show(isOn ? null : i);
      });
      return numbers;
    });
    return () => {
      const pages = state.pages;
      if (!pages) return;
      // A page that was asked for is missing as well, so the two shares overlap. A source does not know what is asked.
      const missing = pages.total - pages.resident;
      const values = [missing, pages.asked, pages.demand, pages.prefetched, pages.pushed, pages.zero];
      values.forEach((value, i) => {
        say(cells[i][0], count(value));
        say(cells[i][1], percent(value, pages.total));
      });
      byId("duplicates").hidden = state.migration?.role === "source";
      say(byId("duplicates"), `${plural(pages.duplicate ?? 0, "page", "pages")} arrived a second time.`);
    };
  }

  function lanesPart(history) {
    const place = byId("lanes");
    let names = "";
    let rows = [];
    return () => {
      const lanes = state.lanes ?? [];
      if (!lanes.length) {
        if (names !== "-") place.replaceChildren(note("No lane is open."));
        names = "-";
        return;
      }
      if (names !== lanes.map((lane) => lane.name).join()) {
        names = lanes.map((lane) => lane.name).join();
        const whole = table(
          null,
          [["Lane"], ["Rate over time"], ["Rate", true], ["Sent", true]],
          lanes.map((lane) => [lane.name, "", "", ""]),
        );
        rows = [...whole.tBodies[0].rows].map((row) => {
          const area = svg("path", { class: "area" });
          const edge = svg("path", { "vector-effect": "non-scaling-stroke" });
          row.cells[1].append(
            svg(
              "svg",
              {
                class: "lane-line",
                viewBox: "0 0 300 30",
                preserveAspectRatio: "none",
                height: 30,
                "aria-hidden": "true",
              },
              area,
              edge,
            ),
          );
          return { area, edge, cells: row.cells };
        });
        place.replaceChildren(whole);
      }
      const recent = history.rows.slice(-240);
      const top = Math.max(1, ...recent.flatMap((row) => Object.values(row)).filter(known));
      const high = top > 1 ? `0 to ${rate(top)}` : "nothing was sent";
      say(
        byId("lanes-scale"),
        `Last ${short(Math.max(0, (history.times.at(-1) - history.times.at(-recent.length)) * 1e3))}, ${high}`,
      );
      lanes.forEach((lane, i) => {
        const step = 300 / Math.max(1, recent.length - 1);
        const points = recent.map(
          (row, at) => `${(at * step).toFixed(1)} ${(29 - (27 * (row[lane.name] ?? 0)) / top).toFixed(1)}`,
        );
        rows[i].edge.setAttribute("d", `M${points.join("L")}`);
        rows[i].area.setAttribute("d", `M0 30L${points.join("L")}L300 30Z`);
        say(rows[i].cells[2], rate(lane.rate_bytes_per_s));
        say(rows[i].cells[3], bytes(lane.bytes));
      });
    };
  }

  // A handler

  const GUEST_TONES = {
    linked: "good", complete: "good", unlinked: "warn", unserved: "warn", held: "bad", killed: "bad", ended: "",
  };
  const fillText = (fill) => (
    fill === null || fill === undefined ? "on demand" : fill === 0 ? "full rate" : rate(fill)
  );
  /** A guest's name, with its id unless the name has it. */
  const called = (g) => ([g.id, `process ${g.id}`].includes(g.name) ? g.name : `${g.name} · ${g.id}`);
  const inOrder = (a, b) => a.pid - b.pid || a.id.localeCompare(b.id, "en", { numeric: true });
  const COLUMNS = [
    { key: "guest", name: "Guest", width: "12rem", value: (g) => g.name },
    { key: "state", name: "State", width: "6.5rem", value: (g) => g.state },
    { key: "resident", name: "Resident", width: "13rem", value: (g) => g.resident / (g.total || 1) },
    { key: "waiting", name: "Waiting", number: true, width: "6rem", value: (g) => g.waiting },
    {
      key: "oldest",
      name: "Oldest",
      number: true,
      width: "6.5rem",
      value: (g) => g.oldest_us ?? 0,
      text: (g) => (g.oldest_us ? duration(g.oldest_us) : NONE),
    },
    {
      key: "p50",
      name: "p50",
      number: true,
      width: "6rem",
      value: (g) => g.p50_us ?? 0,
      text: (g) => duration(g.p50_us),
    },
    {
      key: "p99",
      name: "p99",
      number: true,
      width: "6rem",
      value: (g) => g.p99_us ?? 0,
      text: (g) => duration(g.p99_us),
    },
    { key: "policy", name: "Policy", width: "5rem", value: (g) => g.policy },
    {
      key: "fill",
      name: "Fill",
      number: true,
      width: "6.5rem",
      value: (g) => g.fill ?? -1,
      text: (g) => fillText(g.fill),
    },
    { key: "server", name: "Server", width: "10rem", value: (g) => g.server ?? "", text: (g) => g.server || NONE },
  ];

  function handlerView() {
    const events = eventsPart();
    const guests = guestTable();
    let order = [];
    const fleet = new CellMap(byId("fleet"), {
      label: "Guest",
      tall: 150,
      describe: (cell) => {
        const guest = order[cell];
        if (!guest) return "";
        const waits = guest.waiting
          ? `, ${plural(guest.waiting, "fault waits", "faults wait")}, the oldest for ${duration(guest.oldest_us)}`
          : "";
        const share = percent(guest.resident, guest.total);
        return `${called(guest)}: ${guest.state}, ${share} resident${waits}.`;
      },
      openCell: (cell) => order[cell] && openGuest(order[cell].id),
    });
    byId("fleet-legend").append(
      ...[[2, "on demand"], [3, "ahead of demand"], [1, "a fault waits longer than 0.1 s"], [0, "missing"]].map(
        ([kind, name]) => element("li", null, swatch(kind), name),
      ),
    );

    let fleetCounts = new Uint8Array(0);
    let fleetIds = "";
    let fleetAt = 0;
    let fleetTimer = 0;

    /** Draws the cells that differ, every 2 s: the grid is for the whole, and the table for what is new. */
    function showFleet(isNew) {
      clearTimeout(fleetTimer);
      if (!state.guests) return;
      const wait = fleetAt + 1900 - performance.now();
      if (!isNew && wait > 0) {
        fleetTimer = setTimeout(showFleet, wait, false);
        return;
      }
      fleetAt = performance.now();
      byId("fleet-panel").hidden = state.guests.size === 0;
      if (state.guests.size === 0) return;
      order = [...state.guests.values()].sort(inOrder);
      const counts = new Uint8Array(order.length * 6);
      order.forEach((guest, i) => {
        const share = (n) => Math.min(255, Math.round((255 * (n ?? 0)) / (guest.total || 1)));
        counts[i * 6 + 1] = guest.oldest_us > 100_000 ? 96 : 0;
        counts[i * 6 + 2] = share(guest.demand);
        counts[i * 6 + 3] = share(guest.ahead);
        counts[i * 6] = 255 - Math.min(255, share(guest.resident));
      });
      const ids = order.map((guest) => guest.id).join();
      if (ids !== fleetIds) {
        fleetIds = ids;
        fleetCounts = counts;
        fleet.set({ cells: order.length, counts });
        return;
      }
      const differs = (i) => [0, 1, 2, 3].some((kind) => counts[i * 6 + kind] !== fleetCounts[i * 6 + kind]);
      const changed = order.map((_, i) => i).filter(differs);
      fleetCounts.set(counts);
      fleet.update(changed);
    }

    function changed(keys, details) {
      if (keys.has("guests")) {
        const all = [...state.guests.values()];
        const by = new Map();
        let [waiting, oldest, oldestGuest, resident, total, restarts] = [0, 0, null, 0, 0, 0];
        for (const guest of all) {
          by.set(guest.state, (by.get(guest.state) ?? 0) + 1);
          waiting += guest.waiting ?? 0;
          resident += guest.resident ?? 0;
          total += guest.total ?? 0;
          restarts += guest.restarts ?? 0;
          if ((guest.oldest_us ?? 0) > oldest) [oldest, oldestGuest] = [guest.oldest_us, guest];
        }
        const bad = all.filter((guest) => GUEST_TONES[guest.state] === "bad").length;
        const weak = all.filter((guest) => GUEST_TONES[guest.state] === "warn").length;
        const stuck = oldest > 1e6
          ? `The oldest fault has waited ${duration(oldest)}, in ${called(oldestGuest)}.`
          : "";
        const each = [...by].sort((a, b) => b[1] - a[1]).map(([name, n]) => `${count(n)} ${name}`).join(", ");
        verdict(
          all.length === 0
            ? { words: "No guest is attached.", tone: "run" }
            : {
               words: `${plural(all.length, "guest", "guests")}: ${each}.`,
               reason: stuck,
               tone: bad ? "bad" : weak || stuck ? "warn" : "good",
             },
        );
        figures(byId("figures"), [
          ["Guests", count(all.length), `${count(bad + weak)} without a working link`],
          ["Waiting faults", count(waiting), waiting ? "in all guests" : "no thread waits"],
          [
            "Oldest fault",
            oldest ? duration(oldest) : NONE,
            oldestGuest ? called(oldestGuest) : "",
          ],
          ["Resident", percent(resident, total), `${count(resident)} of ${count(total)} pages`],
          ["Restarts", count(restarts), "of workers, since the guests attached"],
        ]);
        byId("filters").hidden = byId("guest-scroller").hidden = all.length === 0;
        if (all.length) guests.changed();
        else say(byId("guests-shown"), "none");
        // A task of its own, so that no task is long.
        setTimeout(() => showFleet(keys.has("*")));
        if (byId("guest-dialog").open) showGuest();
      }
      if (keys.has("events")) {
        events(details);
        const worst = (details.events ?? []).findLast((event) => ["error", "critical"].includes(event.level));
        if (worst) announce(worst.text);
      }
    }

    return { changed };
  }

  /** The table of guests. Only the rows in sight exist; the state of each row says its place to screen readers. */
  function guestTable() {
    const head = byId("guests").tHead.rows[0];
    const body = byId("guests").tBodies[0];
    const scroller = byId("guest-scroller");
    const space = () => element("tr", { class: "space", "aria-hidden": "true" });
    const [above, below] = [space(), space()];
    body.append(above, below);
    byId("guests").setAttribute("aria-colcount", COLUMNS.length);
    byId("guests").setAttribute(
      "aria-description",
      "In the rows, the arrow keys move between guests, and Enter opens one.",
    );
    // The rows themselves are reached by Tab.
    scroller.tabIndex = -1;

    let sort = { key: "oldest", isUp: false };
    let shown = [];
    let sortedAt = 0;
    let sortTimer = 0;
    let focused = 0;
    const rows = new Map();

    for (const column of COLUMNS) {
      const button = element("button", { type: "button" }, column.name);
      const cell = element(
        "th",
        { scope: "col", role: "columnheader", class: `c-${column.key}${column.number ? " number" : ""}` },
        button,
      );
      cell.style.inlineSize = column.width;
      head.append(cell);
      button.addEventListener("click", () => {
        const isUp = sort.key === column.key ? !sort.isUp : !column.number;
        sort = { key: column.key, isUp };
        order(true);
        scroller.scrollTop = 0;
        draw();
      });
    }

    const [filter, stateFilter, waitingFilter] = ["filter", "state-filter", "waiting-filter"].map(byId);
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("input", () => {
      order(true);
      scroller.scrollTop = 0;
      draw();
    });

    /** Sorts anew, but not under the hand of somebody who reads or moves in the rows. */
    function order(force) {
      const isHeld = body.matches(":hover") || body.contains(document.activeElement);
      const words = filter.value.trim().toLowerCase();
      const isWanted = (guest) =>
        (!words || `${guest.name} ${guest.id} ${guest.server} ${guest.socket}`.toLowerCase().includes(words)) &&
        (!stateFilter.value || guest.state === stateFilter.value) &&
        (!waitingFilter.checked || guest.waiting > 0);
      clearTimeout(sortTimer);
      if (force || (!isHeld && performance.now() - sortedAt > 2000)) {
        sortedAt = performance.now();
        const column = COLUMNS.find(({ key }) => key === sort.key);
        const way = sort.isUp ? 1 : -1;
        shown = [...state.guests.values()]
          .filter(isWanted)
          .map((guest) => [column.value(guest), guest])
          .sort(([a, one], [b, other]) => (a < b ? -way : a > b ? way : inOrder(one, other)))
          .map(([, guest]) => guest.id);
      } else {
        shown = shown.filter((id) => state.guests.has(id));
        // No tick may follow that would sort in a guest that is new.
        sortTimer = setTimeout(() => state.guests?.size > 0 && changed(), 2100);
      }
      COLUMNS.forEach(({ key }, i) => {
        head.cells[i].setAttribute("aria-sort", key !== sort.key ? "none" : sort.isUp ? "ascending" : "descending");
      });
      const all = state.guests.size;
      say(
        byId("guests-shown"),
        shown.length === all ? `${count(all)}, sorted anew every 2 s` : `${count(shown.length)} of ${count(all)}`,
      );
      byId("guests").setAttribute("aria-rowcount", shown.length + 1);
    }

    function makeRow() {
      const open = element("button", { type: "button", class: "open", tabindex: -1 });
      open.addEventListener("click", () => openGuest(shown[Number(row.getAttribute("aria-rowindex")) - 2], open));
      const row = element("tr", { class: "row", role: "row" });
      const parts = COLUMNS.map((column, i) => {
        const cell = element(i === 0 ? "th" : "td", {
          role: i === 0 ? "rowheader" : "cell", scope: i === 0 ? "row" : null,
          class: `c-${column.key}${column.number ? " number" : ""}`,
        });
        const value = element("span");
        if (column.key === "guest") {
          cell.append(open);
        } else if (column.key === "resident") {
          const fill = element("span");
          cell.append(
            element("div", { class: "bar" }, element("div", { class: "track", "aria-hidden": "true" }, fill), value),
          );
          row.append(cell);
          return { value, fill };
        } else {
          cell.append(element("span", { class: "label", "aria-hidden": "true" }, column.name), value);
        }
        row.append(cell);
        return { value };
      });
      return { row, open, parts };
    }

    function fillRow({ row, open, parts }, guest, index) {
      // A guest may leave between a tick and the frame that shows the tick.
      if (!guest) return;
      row.setAttribute("aria-rowindex", index + 2);
      open.tabIndex = index === focused ? 0 : -1;
      say(open, called(guest));
      COLUMNS.forEach((column, i) => {
        if (column.key === "guest") return;
        if (column.key === "resident") {
          const share = percent(guest.resident, guest.total);
          if (parts[i].value.textContent !== share) {
            parts[i].value.textContent = share;
            parts[i].fill.style.inlineSize = `${(100 * guest.resident) / (guest.total || 1)}%`;
          }
          return;
        }
        const words = column.text ? column.text(guest) : column.number ? count(column.value(guest)) : String(
          column.value(guest) ?? NONE,
        );
        say(parts[i].value, words);
        if (column.key === "state") parts[i].value.className = `tone-${GUEST_TONES[guest.state] ?? ""}`;
      });
    }

    function draw() {
      const height = phone.matches ? 124 : 44;
      const isHead = phone.matches ? byId("guests").tHead.offsetHeight : 40;
      // No empty space below few guests, but room for a scroll bar.
      const most = `${isHead + shown.length * height + 20}px`;
      if (scroller.style.maxBlockSize !== most) scroller.style.maxBlockSize = most;
      const top = Math.max(0, scroller.scrollTop - isHead);
      const first = Math.max(0, Math.min(shown.length - 1, Math.floor(top / height)) - 4);
      const last = Math.min(shown.length, first + Math.ceil(scroller.clientHeight / height) + 9);
      const wanted = shown.slice(first, last);
      const keep = new Set(wanted);
      // A row that leaves is used for one that comes: new elements cost more than new texts.
      const spare = [];
      for (const [id, parts] of rows) {
        if (keep.has(id)) continue;
        if (parts.row.contains(document.activeElement)) scroller.focus({ preventScroll: true });
        rows.delete(id);
        spare.push(parts);
      }
      if (focused >= shown.length) focused = Math.max(0, shown.length - 1);
      // The one row that Tab reaches is always among the rows that exist.
      if (focused < first || focused >= last) focused = Math.min(
        Math.max(0, shown.length - 1),
        first + (first > 0 ? 4 : 0),
      );
      let before = above;
      wanted.forEach((id, i) => {
        if (!rows.has(id)) rows.set(id, spare.pop() ?? makeRow());
        const parts = rows.get(id);
        fillRow(parts, state.guests.get(id), first + i);
        if (before.nextElementSibling !== parts.row) before.after(parts.row);
        before = parts.row;
      });
      for (const { row } of spare) row.remove();
      above.style.blockSize = `${first * height}px`;
      below.style.blockSize = `${(shown.length - last) * height}px`;
    }

    let isDue = false;
    scroller.addEventListener("scroll", () => {
      if (isDue) return;
      isDue = true;
      requestAnimationFrame(() => {
        isDue = false;
        draw();
      });
    }, { passive: true });
    phone.addEventListener("change", () => draw());
    body.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.floor(scroller.clientHeight / (phone.matches ? 124 : 44)) - 2);
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const height = phone.matches ? 124 : 44;
      const headHeight = phone.matches ? byId("guests").tHead.offsetHeight : 40;
      focused = Math.min(shown.length - 1, Math.max(0, focused + steps[event.key]));
      const [from, to] = [focused * height, (focused + 1) * height];
      const covered = phone.matches ? headHeight : 0;
      if (from + covered < scroller.scrollTop) scroller.scrollTop = from + covered;
      const least = to + headHeight - scroller.clientHeight;
      if (least > scroller.scrollTop) scroller.scrollTop = least;
      const wanted = focused;
      draw();
      focused = wanted;
      const { row, open } = rows.get(shown[wanted]) ?? {};
      open?.focus({ preventScroll: true });
      row?.scrollIntoView({ block: "nearest" });
    });
    body.addEventListener("focusin", (event) => {
      const row = event.target.closest("tr.row");
      if (row) focused = Number(row.getAttribute("aria-rowindex")) - 2;
    });

    function changed() {
      const states = [...new Set([...state.guests.values()].map((guest) => guest.state))].sort();
      if (stateFilter.dataset.states !== states.join()) {
        stateFilter.dataset.states = states.join();
        const chosen = stateFilter.value;
        stateFilter.replaceChildren(
          element("option", { value: "" }, "all states"),
          ...states.map((name) => element("option", { value: name }, name)),
        );
        stateFilter.value = states.includes(chosen) ? chosen : "";
      }
      order(
        shown.length === 0 && state.guests.size > 0 && !filter.value && !stateFilter.value && !waitingFilter.checked,
      );
      draw();
    }

    return { changed };
  }

  let guestOpen = null;
  let guestOpener = null;

  function openGuest(id, opener = null) {
    guestOpen = id;
    guestOpener = opener;
    const actions = byId("guest-actions");
    actions.replaceChildren();
    if (state.control) {
      for (const action of GUEST_ACTIONS) {
        const button = element("button", { type: "button" }, `${action.name} …`);
        button.addEventListener("click", () => ask(`api/guests/${guestOpen}/${action.key}`, action, button));
        actions.append(button);
      }
    }
    byId("guest-figures").replaceChildren();
    showGuest();
    byId("guest-dialog").showModal();
  }

  const GUEST_ACTIONS = [
    {
      key: "fill", name: "Fill at a rate", confirm: "Fill the guest",
      text: "The handler fetches the missing pages of this guest in the background, at most at this rate.",
      input: {
        name: "Rate in MiB per second", placeholder: "no limit", isOptional: true,
        type: "number", min: 0.1, step: "any",
        body: (text) => ({ rate_bytes_per_s: text === "" ? null : Math.round(Number(text) * 1048576) }),
      },
    },
    {
      key: "release", name: "Release", confirm: "Release the guest",
      text: "The handler fetches all missing pages without a limit. Then the guest needs no handler any more.",
    },
  ];

  function showGuest() {
    const guest = state.guests.get(guestOpen);
    say(byId("guest-dialog-title"), guest ? called(guest) : `The guest ${guestOpen} is gone`);
    if (!guest) return;
    const entries = [
      ["Process", guest.pid ? String(guest.pid) : "in another PID namespace"],
      ["State", guest.state],
      ["Resident", `${count(guest.resident)} of ${count(guest.total)} pages, ${percent(guest.resident, guest.total)}`],
      ["On demand", `${count(guest.demand)} pages`],
      ["Ahead of demand", `${count(guest.ahead)} pages`],
      [
        "Waiting faults",
        guest.waiting ? `${count(guest.waiting)}, the oldest for ${duration(guest.oldest_us)}` : "none",
      ],
      ["Fault p50, p99", `${duration(guest.p50_us)}, ${duration(guest.p99_us)}`],
      ["Policy", guest.policy ?? NONE],
      ["Fill", fillText(guest.fill)],
      ["Server", guest.server || NONE],
      ["Socket", guest.socket || NONE],
      ["Restarts", count(guest.restarts)],
      ["Attached", guest.attached_unix_ms ? `${duration((state.unix_ms - guest.attached_unix_ms) * 1e3)} ago` : NONE],
    ];
    const list = byId("guest-figures");
    if (list.children.length !== entries.length) {
      list.replaceChildren(...entries.map(() => element("div", null, element("dt"), element("dd"))));
    }
    entries.forEach(([name, value], i) => {
      say(list.children[i].children[0], name);
      say(list.children[i].children[1], value);
    });
  }

  byId("guest-close").addEventListener("click", () => byId("guest-dialog").close());
  byId("guest-dialog").addEventListener("close", () => guestOpener?.isConnected && guestOpener.focus());

  // A server

  function serverView() {
    const events = eventsPart();
    const past = new History();
    const chart = new Chart(byId("rate-chart"), timeLines);
    return {
      changed(keys, details) {
        const server = state.server ?? {};
        past.push({ rate: server.rate_bytes_per_s });
        const isFull = server.connections_limit > 0 && server.connections >= server.connections_limit;
        const path = server.path ?? "the snapshot";
        verdict({
          words: server.sessions
            ? `${plural(server.sessions, "session fetches", "sessions fetch")} pages of ${path}.`
            : `No session fetches pages of ${path} now.`,
          reason: isFull ? "The limit of connections is reached: further ones are refused." : "",
          tone: isFull ? "warn" : server.sessions ? "good" : "run",
        });
        figures(byId("figures"), [
          ["Snapshot", bytes(server.snapshot_bytes), server.path ?? ""],
          ["Sessions", count(server.sessions), "guests that are linked"],
          ["Connections", count(server.connections), `of at most ${count(server.connections_limit)}`],
          ["Sent", bytes(server.sent_bytes), "since the start"],
          ["Rate", rate(server.rate_bytes_per_s), "all sessions"],
        ]);
        chart.draw({
          times: past.times,
          series: [{ name: "", values: past.column("rate"), style: "" }],
          names: false,
          base: 1024,
          least: 4096,
          format: (value) => rate(value).replace(/\.0+ /, " "),
          label: `Bytes sent per second over time. Now: ${rate(server.rate_bytes_per_s)}.`,
        });
        if (keys.has("events")) events(details);
      },
    };
  }

  // Actions

  /** The token that the tab keeps; a browser may forbid to keep anything. */
  const kept = {
    get() {
      try {
        return sessionStorage.getItem("pageferry-token") ?? "";
      } catch {
        return "";
      }
    },
    set(token) {
      try {
        if (token) sessionStorage.setItem("pageferry-token", token);
        else sessionStorage.removeItem("pageferry-token");
      } catch {
        // The token is asked for again.
      }
    },
  };
  let asked = null;

  function ask(path, action, opener) {
    asked = { path, action, opener };
    say(byId("action-title"), action.name);
    say(byId("action-text"), action.text);
    say(byId("action-confirm"), action.confirm);
    say(byId("action-answer"), "");
    delete byId("action-answer").dataset.done;
    const input = byId("action-input");
    byId("action-input-label").hidden = !action.input;
    say(byId("action-input-name"), action.input?.name ?? "");
    input.value = "";
    input.type = action.input?.type ?? "text";
    input.min = action.input?.min ?? "";
    input.step = action.input?.step ?? "";
    input.placeholder = action.input?.placeholder ?? "";
    input.required = Boolean(action.input && !action.input.isOptional);
    byId("action-token").value = kept.get();
    byId("action-keep").checked = kept.get() !== "";
    byId("action-confirm").disabled = false;
    byId("action-dialog").showModal();
  }

  byId("action-back").addEventListener("click", () => byId("action-dialog").close());
  byId("action-dialog").addEventListener("close", () => {
    // The action may not be possible any more, and then its button cannot have the focus.
    const able = [asked?.opener, ...document.querySelectorAll("#action-buttons button"), byId("main")];
    able.find((node) => node?.isConnected && !node.disabled)?.focus();
  });
  byId("action-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const { path, action } = asked;
    const answer = byId("action-answer");
    const token = byId("action-token").value.trim();
    delete answer.dataset.done;
    // No request can carry some others.
    if (!/^[\x21-\x7e]+$/.test(token)) {
      say(answer, "Not sent: a token has only visible ASCII characters.");
      return;
    }
    kept.set(byId("action-keep").checked ? token : "");
    byId("action-confirm").disabled = true;
    say(answer, "Waiting for the answer.");
    answer.dataset.done = "";
    try {
      const response = await fetch(path, {
        method: "POST",
        headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
        body: JSON.stringify(action.input ? action.input.body(byId("action-input").value.trim()) : {}),
      });
      if (response.ok) {
        say(answer, "Done.");
      } else {
        delete answer.dataset.done;
        const reason = await response.json().then((body) => body.error, () => null);
        say(answer, reason ? `Refused: ${reason}` : `Refused with status ${response.status}.`);
      }
    } catch {
      delete answer.dataset.done;
      say(answer, "No answer: the process cannot be reached.");
    }
    byId("action-confirm").disabled = false;
  });

  byId("reconnect").addEventListener("click", () => {
    connection.wait = 1000;
    connect();
  });

  connect();
})();
