/** The results of a benchmark: draws the JSON that the file carries, with the parts of a report's page. */
Ferry.bench = (results, sections, { panel, columns, drawing, disclosure }) => {
  const { NONE, byId, say, known, count, duration, bytes, rate, plural, table, histogram, bucketLow } = Ferry;
  const FIGURES = [
    ["p50_us", "wait p50", duration],
    ["p99_us", "wait p99", duration],
    ["p999_us", "wait p99.9", duration],
    ["seconds", "time", (seconds) => duration(seconds * 1e6)],
    ["mib_s", "rate", (mebibytes) => rate(mebibytes * 1048576)],
    ["ms", "time", (milliseconds) => duration(milliseconds * 1e3)],
    ["mib", "memory", (mebibytes) => bytes(mebibytes * 1048576)],
    ["cpu_s_per_gib", "processor time per GiB", (seconds) => duration(seconds * 1e6)],
    ["cpu_us_per_fault", "processor time per fault", duration],
  ];
  const ratio = (x) => (known(x) ? `× ${x.toFixed(2)}` : NONE);
  const { cases } = results;

  /** The figures of a case: name, ours, the other side's, and their ratio. */
  const rows = ({ ours, other, ratio: ratios }) =>
    FIGURES.filter(([key]) => known(ours?.[key])).map(([key, name, format]) => [
      name, format(ours[key]), known(other?.[key]) ? format(other[key]) : NONE, ratio(ratios?.[key]),
    ]);

  function stalls({ name, histogram: given }) {
    const perOctave = given?.per_octave ?? 8;
    const buckets = given?.stall?.filter(([upper, n]) => upper > 0 && n > 0) ?? [];
    if (!buckets.length) return [];
    const sum = buckets.reduce((all, [, n]) => all + n, 0);
    const lengths = buckets.map(([upper, n]) => [duration(bucketLow(upper, perOctave)), duration(upper), count(n)]);
    return [
      drawing(
        { buckets, perOctave, floor: 0, label: `Histogram of ${count(sum)} stalls of the case ${name}.` },
        histogram,
      ),
      disclosure(
        `Stalls of ${name} by length, as a table`,
        table(null, [["From", true], ["To", true], ["Count", true]], lengths),
      ),
    ];
  }

  document.title = "Benchmark – Pageferry";
  say(byId("title"), "Benchmark");
  say(byId("subtitle"), plural(cases.length, "case", "cases"));
  say(byId("schema"), `Format ${results.schema}. Each figure is the median of the rounds, and each ratio that of the rounds' ratios.`);
  byId("verdict").dataset.tone = "run";
  say(byId("verdict-text"), "What moving pages costs, compared with the shortest code that does the same.");
  const first = cases.map((one) => [one.name, one.against, ...(rows(one)[0] ?? [NONE, NONE, NONE, NONE])]);
  const heads = [["Figure"], ["Ours", true], ["Other", true], ["Ratio", true]];
  sections.append(
    panel("All cases", "The first figure of each", table(null, [["Case"], ["Against"], ...heads], first)),
    columns(...cases.map((one) =>
      panel(one.name, `against ${one.against}`, table(null, heads, rows(one)), ...stalls(one)),
    )),
  );
};
