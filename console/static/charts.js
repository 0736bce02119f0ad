// Charts: <figure class="chart" data-chart='{"times": [...], "series": [{"name", "values", "kind"}], "unit": ""}'>.
// A picture only: exact figures stand in the table beside each chart. Missing values are null and leave a gap.
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
const full = new Intl.NumberFormat("en", { maximumFractionDigits: 6 });

// Marks of the time axis as pages write times: 24 hours, the day where one begins, in the chart's own zone.
function timeMarks(zone) {
  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: zone });
  const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: zone });
  const year = new Intl.DateTimeFormat("en-GB", { year: "numeric", timeZone: zone });
  return (_, marks, axis, space, step) => marks.map((mark, index) => {
    const when = new Date(mark * 1000);
    const before = index ? new Date(marks[index - 1] * 1000) : null;
    if (step >= 86400) { return day.format(when) + (!before || year.format(before) !== year.format(when) ? `\n${year.format(when)}` : ""); }
    return clock.format(when) + (!before || day.format(before) !== day.format(when) ? `\n${day.format(when)}` : "");
  });
}

function spec(figure, data) {
  const bars = data.series.some((one) => one.kind === "bars");
  const zone = data.zone || "UTC";
  return {
    width: Math.max(280, figure.clientWidth - 20),
    height: data.height || 240,
    legend: { show: false },
    cursor: { y: false, points: { size: 7 } },
    padding: [10, 26, 0, 4],
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone),
    scales: {
      x: { time: true, range: bars ? (_, low, high) => { const step = data.step || 3600; return [low - step / 2, high + step / 2]; } : undefined },
      y: { range: (_, low, high) => { const floor = Math.min(0, low ?? 0); const top = Math.max(high ?? 1, floor + 1e-9); return [floor * 1.05, top + (top - floor) * 0.08]; } },
    },
    axes: [
      { stroke: css("--soft"), grid: { show: false }, ticks: { stroke: css("--line") }, font: "12px " + css("--font"), values: timeMarks(zone), space: 64 },
      { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, size: 62, font: "12px " + css("--font"),
        values: (_, marks) => marks.map((mark) => compact.format(mark)) },
    ],
    series: [{}].concat(data.series.map((one, index) => {
      const colour = css(`--series-${(index % 6) + 1}`);
      return {
        label: one.name, stroke: colour, width: one.kind === "bars" ? 0 : 2, dash: one.dashed ? [6, 5] : undefined,
        fill: one.kind === "bars" ? colour : one.kind === "area" ? colour + "22" : undefined,
        paths: one.kind === "bars" ? uPlot.paths.bars({ size: [0.78, 34], radius: 0.12 }) : one.kind === "step" ? uPlot.paths.stepped({ align: 1 }) : undefined,
        points: { show: one.kind !== "bars" && one.values.length < 40 },
        spanGaps: false,
      };
    })),
    hooks: { setCursor: [(plot) => tip(figure, plot, data)] },
  };
}

function tip(figure, plot, data) {
  const box = figure.querySelector(".tip");
  const index = plot.cursor.idx;
  if (index === null || index === undefined) { box.hidden = true; return; }
  const when = new Date(data.times[index] * 1000);
  const time = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: data.zone || "UTC" }).format(when);
  box.replaceChildren();
  const head = document.createElement("div");
  head.textContent = `${time} ${data.zone || "UTC"}`;
  box.append(head);
  for (const one of data.series) {
    const line = document.createElement("div");
    const value = one.values[index];
    line.textContent = `${one.name}: ${value === null ? "none" : full.format(value)} ${data.unit || ""}`;
    box.append(line);
  }
  box.hidden = false;
  const left = plot.cursor.left + 84;
  box.style.left = `${Math.min(left, figure.clientWidth - box.offsetWidth - 8)}px`;
  box.style.top = "16px";
}

function legend(figure, data) {
  const holder = document.createElement("div");
  holder.className = "legend";
  data.series.forEach((one, index) => {
    const key = document.createElement("span");
    key.className = "key";
    const mark = document.createElement("i");
    mark.style.background = css(`--series-${(index % 6) + 1}`);
    key.append(mark, one.name);
    holder.append(key);
  });
  figure.append(holder);
}

// Of a split, the series that passes nearest to where was clicked.
function nearest(plot, data, index) {
  const away = (one) => Math.abs(plot.valToPos(one.values[index], "y") - plot.cursor.top);
  return data.series.filter((one) => one.link && one.values[index] !== null).sort((one, other) => away(one) - away(other))[0];
}

function draw(figure) {
  const data = JSON.parse(figure.dataset.chart);
  figure.plot?.destroy();
  figure.querySelectorAll(".plot, .legend, .tip").forEach((old) => old.remove());
  if (!data.times.length) { return; }
  const holder = document.createElement("div");
  holder.className = "plot";
  const box = document.createElement("div");
  box.className = "tip";
  box.hidden = true;
  figure.append(holder, box);
  figure.plot = new uPlot(spec(figure, data), [data.times].concat(data.series.map((one) => one.values)), holder);
  if (data.link) {
    figure.plot.over.style.cursor = "pointer";
    figure.plot.over.addEventListener("click", () => {
      const index = figure.plot.cursor.idx;
      if (index === null || index === undefined) { return; }
      const time = encodeURIComponent(new Date(data.times[index] * 1000).toISOString());
      window.location.assign(data.link.replace("{time}", time) + (nearest(figure.plot, data, index)?.link ?? ""));
    });
  }
  legend(figure, data);
}

export function drawAll() { document.querySelectorAll("[data-chart]").forEach(draw); }
let pending = 0;
const again = () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(drawAll); };
window.addEventListener("resize", again);
window.addEventListener("themechange", again);
drawAll();
