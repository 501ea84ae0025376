"use strict";

/** The grid of cells. */
(() => {
  const { KINDS, element, say, count, percent, colour, themeChanged, kindFill } = Ferry;

  /**
   * A grid of cells on a canvas, each filled from below by the shares of its kinds.
   *
   * The grid is a slider for the keyboard and for screen readers: the arrow keys move along the addresses, and the
   * value's text describes the cell.
   */
  class CellMap {
    /** `describe(cell)` gives the text of a cell; `tall` is the height that the grid should have. */
    constructor(host, { label, describe, tall = 300, openCell = null }) {
      Object.assign(this, { host, describe, tall, openCell });
      this.cells = 0;
      this.counts = new Uint8Array(0);
      this.only = null;
      this.bounds = [];
      this.canvas = element("canvas", { "aria-hidden": "true" });
      this.cursor = element("div", { class: "cursor", hidden: true });
      this.box = element(
        "div",
        { class: "map", role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": 1 },
        this.canvas,
        this.cursor,
      );
      this.readout = element("p", { class: "readout", "aria-hidden": "true" });
      host.replaceChildren(this.box, this.readout);
      this.at = 0;
      this.box.addEventListener("keydown", (event) => this.#key(event));
      this.box.addEventListener("focus", () => this.#point(this.at));
      this.box.addEventListener("blur", () => this.#leave());
      this.box.addEventListener("pointermove", (event) => this.#point(this.#cellAt(event)));
      this.box.addEventListener("pointerdown", (event) => this.#point(this.#cellAt(event)));
      this.box.addEventListener("pointerleave", () => this.#leave());
      this.box.addEventListener("click", (event) => {
        if (this.openCell && event.detail > 0) this.openCell(this.#cellAt(event));
      });
      new ResizeObserver(() => this.#layout()).observe(host);
      themeChanged.push(() => this.redraw());
      this.#leave();
    }

    /** Shows other cells: 6 bytes for each. */
    set({ cells, counts, bounds = [] }) {
      const sameCells = cells === this.cells;
      Object.assign(this, { cells, counts, bounds });
      if (this.at >= cells) this.at = 0;
      this.box.setAttribute("aria-valuemax", Math.max(1, cells));
      this.#value();
      if (sameCells && this.columns) this.redraw();
      else this.#layout(true);
    }

    /** Draws the cells that have changed. */
    update(changed) {
      this.#draw(changed);
      this.#refresh();
    }

    /** Shows only one kind in its colour; null shows all. */
    show(kind) {
      this.only = kind;
      this.redraw();
    }

    redraw() {
      if (!this.columns) return;
      const all = new Array(this.cells);
      for (let i = 0; i < this.cells; i += 1) all[i] = i;
      const context = this.canvas.getContext("2d");
      context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      this.#draw(all);
      this.#refresh();
    }

    #layout(force = false) {
      const width = this.host.clientWidth - 8;
      if (width <= 0 || this.cells === 0) return;
      const ratio = Math.max(1, Math.round(window.devicePixelRatio * 2) / 2);
      if (!force && width === this.width && ratio === this.ratio) return;
      const tall = Math.min(this.tall, Math.max(140, width));
      const ideal = Math.sqrt((width * tall) / this.cells);
      this.size = Math.max(3, Math.min(28, Math.floor(ideal)));
      this.columns = Math.max(1, Math.min(this.cells, Math.floor(width / this.size)));
      this.rows = Math.ceil(this.cells / this.columns);
      Object.assign(this, { width, ratio });
      this.canvas.width = this.columns * this.size * ratio;
      this.canvas.height = this.rows * this.size * ratio;
      this.canvas.style.inlineSize = `${this.columns * this.size}px`;
      this.canvas.style.blockSize = `${this.rows * this.size}px`;
      this.redraw();
    }

    #draw(cells) {
      if (!this.columns) return;
      const context = this.canvas.getContext("2d");
      const side = this.size * this.ratio;
      const inner = side - (this.size >= 6 ? Math.max(1, Math.round(this.ratio)) : 0);
      const x = (cell) => (cell % this.columns) * side;
      const y = (cell) => Math.floor(cell / this.columns) * side;
      context.fillStyle = colour("map-missing");
      for (const cell of cells) context.fillRect(x(cell), y(cell), inner, inner);
      // From below: what is there for long, then what came on demand, then what is on the way.
      const below = new Int32Array(cells.length);
      const dim = colour("map-dim");
      for (const kind of [4, 5, 3, 2, 1]) {
        context.fillStyle = this.only === null || this.only === kind ? kindFill(context, kind) : dim;
        const least = kind === 1 || kind === 2 ? 1 : 0;
        for (let i = 0; i < cells.length; i += 1) {
          const share = this.counts[cells[i] * 6 + kind];
          if (share === 0) continue;
          const height = Math.min(inner - below[i], Math.max(least, Math.round((share * inner) / 255)));
          if (height <= 0) continue;
          context.fillRect(x(cells[i]), y(cells[i]) + inner - below[i] - height, inner, height);
          below[i] += height;
        }
      }
      context.fillStyle = colour("ink");
      for (const bound of this.bounds) {
        const thick = Math.max(1, Math.round(this.ratio));
        context.fillRect(x(bound) - (x(bound) > 0 ? thick : 0), y(bound), thick, side);
      }
    }

    #cellAt(event) {
      const box = this.canvas.getBoundingClientRect();
      const column = Math.min(this.columns - 1, Math.max(0, Math.floor((event.clientX - box.left) / this.size)));
      const row = Math.min(this.rows - 1, Math.max(0, Math.floor((event.clientY - box.top) / this.size)));
      return Math.min(this.cells - 1, row * this.columns + column);
    }

    #key(event) {
      const steps = {
        ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
        PageUp: -this.columns * 4, PageDown: this.columns * 4, Home: -Infinity, End: Infinity,
      };
      if (event.key === "Enter" && this.openCell) {
        this.openCell(this.at);
      } else if (event.key in steps) {
        this.#point(Math.min(this.cells - 1, Math.max(0, this.at + steps[event.key])));
      } else {
        return;
      }
      event.preventDefault();
    }

    #point(cell) {
      if (!this.columns || this.cells === 0) return;
      this.at = cell;
      this.shown = true;
      this.cursor.hidden = false;
      this.cursor.style.insetInlineStart = `${3 + (cell % this.columns) * this.size - 2}px`;
      this.cursor.style.insetBlockStart = `${3 + Math.floor(cell / this.columns) * this.size - 2}px`;
      this.cursor.style.inlineSize = this.cursor.style.blockSize = `${this.size + 3}px`;
      this.#value();
      say(this.readout, this.describe(cell));
    }

    /** Describes the pointed cell anew after a change; screen readers hear it when the cursor moves. */
    #refresh() {
      if (this.shown) say(this.readout, this.describe(this.at));
    }

    #value() {
      if (this.cells === 0) return;
      this.box.setAttribute("aria-valuenow", this.at + 1);
      this.box.setAttribute("aria-valuetext", this.describe(this.at));
    }

    #leave() {
      if (document.activeElement === this.box) return this.#point(this.at);
      this.shown = false;
      this.cursor.hidden = true;
      say(this.readout, "Point at a cell, or focus the map and use the arrow keys, to read what a cell holds.");
    }
  }

  /** The text of a cell of a map of memory. */
  function describeCell(map, counts, cell) {
    const region = (map.regions ?? []).find((r) => cell >= r.first_cell && cell < r.first_cell + r.cells);
    const first = (cell - (region?.first_cell ?? 0)) * map.pages_per_cell;
    const shares = KINDS.map((kind, i) => [kind.name.toLowerCase(), counts[cell * 6 + i]])
      .filter(([, share]) => share > 0)
      .map(([name, share]) => `${name} ${percent(share, 255)}`);
    const last = Math.min(first + map.pages_per_cell, region?.pages ?? Infinity) - 1;
    const where = `${region ? `${region.name}, ` : ""}pages ${count(first)} to ${count(last)}`;
    return `Cell ${count(cell + 1)} of ${count(map.cells)}: ${where}: ${shares.join(", ") || "unknown"}.`;
  }

  Object.assign(Ferry, { CellMap, describeCell });
})();
