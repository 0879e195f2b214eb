// What moves now: a graph of the last minutes, of what the stream tells each second.
"use strict";
(() => {
  const KEPT = 300, SHOWN_S = 60;
  const place = document.querySelector("[data-graph]");
  const names = place.dataset.names.split(" "), labels = place.dataset.labels.split("|");
  const colours = ["--accent", "--info", "--bad"];
  const times = [], values = names.map(() => []);
  const look = getComputedStyle(document.documentElement);
  const colour = (name) => look.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  const series = names.map((name, at) => ({
    label: labels[at], stroke: colour(colours[at]), width: 1.8, dash: [[], [6, 3], [2, 3]][at],
    value: (_, value) => (value == null ? "\u2013" : new Intl.NumberFormat(document.documentElement.lang).format(value)),
  }));
  const clock = new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: "medium", hourCycle: "h23" });
  const graph = new uPlot({
    width: place.clientWidth, height: 200, legend: { live: true }, cursor: { y: false },
    scales: { x: { range: (_, low, high) => [Math.min(low, high - SHOWN_S), high] }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [{ ...axis, space: 90, incrs: [10, 30, 60, 120, 300], values: (_, at) => at.map((one) => clock.format(one * 1000)) }, { ...axis, label: place.dataset.unit, labelSize: 20 }],
    series: [{ label: place.dataset.time, value: (_, at) => (at == null ? "\u2013" : clock.format(at * 1000)) }, ...series],
  }, [times, ...values], place);
  const add = (rates) => {
    times.push(Math.round(Date.now() / 1000));
    names.forEach((name, at) => values[at].push(rates[name] ?? 0));
    if (times.length > KEPT) for (const one of [times, ...values]) one.shift();
    graph.setData([times, ...values]);
  };
  let last = {};
  let heard = 0;
  document.addEventListener("rates", ({ detail }) => { last = detail; heard = Date.now(); add(detail); });
  // Nothing is told while nothing moves: then it goes on as it was, which is at rest.
  setInterval(() => { if (!document.hidden && Date.now() - heard > 1500) add(last); }, 1000);
  new ResizeObserver(() => graph.setSize({ width: place.clientWidth, height: 200 })).observe(place);
})();
