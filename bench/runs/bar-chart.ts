import { formatFigure } from "../report.ts";

/** Bars in groups, one of each series in every group. */
export interface BarChart {
  /** What is shown. */
  readonly title: string;
  /** What the vertical axis counts, and its unit. */
  readonly unit: string;
  readonly series: readonly string[];
  readonly groups: readonly { readonly label: string; readonly values: readonly number[] }[];
}

// In pixels.
const width = 760;
const margin = 24;
const plot = { left: 76, right: width - margin, top: 104, bottom: 300 };
const height = 342;
const labelHeight = 18;
const gap = 6;

/** Told apart also by who sees no red or no green, on light and on dark. */
const colours = ["#2f6feb", "#d1791f", "#8a63c9", "#4f8f5b"];

/** Brings its own ground, so that it reads the same whatever is around it. */
const style = `
  .ground { fill: #ffffff; stroke: #d0d7de; }
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .axis { stroke: #59636e; }
  .grid { stroke: #d0d7de; stroke-dasharray: 2 4; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #161b22; stroke: #3d444d; }
    text { fill: #e6edf3; }
    .axis { stroke: #9198a1; }
    .grid { stroke: #3d444d; }
  }`;

/** Draws a chart as SVG: a linear scale from zero, and its value above each bar. */
export function drawBarChart({ title, unit, series, groups }: BarChart): string {
  const greatest = Math.max(...groups.flatMap(({ values }) => values));
  const heightOf = (value: number): number => ((plot.bottom - plot.top - labelHeight) * value) / greatest;
  const groupWidth = (plot.right - plot.left) / groups.length;
  const barWidth = Math.min(72, (groupWidth - 32) / series.length - gap);
  const bars = groups.flatMap(({ label, values }, group) => {
    const middle = plot.left + groupWidth * (group + 0.5);
    const first = middle - (series.length * (barWidth + gap) - gap) / 2;
    return [
      ...values.map((value, index) => {
        const x = first + index * (barWidth + gap);
        const y = plot.bottom - heightOf(value);
        const bar = rectangle(x, y, barWidth, heightOf(value), colours[index]);
        return `${bar}${text(x + barWidth / 2, y - 6, formatFigure(value), "middle")}`;
      }),
      text(middle, plot.bottom + 22, label, "middle"),
    ];
  });
  const grid = ticksOf(greatest).map((tick) => {
    const y = plot.bottom - heightOf(tick);
    return `${line(y, tick === 0 ? "axis" : "grid")}${text(plot.left - 8, y + 4, formatFigure(tick), "end")}`;
  });
  const legend = series.map((name, index) => {
    const x = margin + index * 220;
    return `${rectangle(x, 44, 12, 12, colours[index])}${text(x + 18, 55, name, "start")}`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escape(title)}">
<style>${style}
</style>
<rect class="ground" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8"/>
<text class="title" x="${margin}" y="28">${escape(title)}</text>
${text(margin, 84, unit, "start")}
${[...legend, ...grid, ...bars].join("\n")}
</svg>
`;
}

/** From zero, at most six round numbers up to the greatest value. */
function ticksOf(greatest: number): readonly number[] {
  const magnitude = 10 ** Math.floor(Math.log10(greatest / 5));
  const step = magnitude * ([1, 2, 5, 10].find((factor) => magnitude * factor * 5 >= greatest) ?? 10);
  return Array.from({ length: Math.floor(greatest / step) + 1 }, (_, index) => index * step);
}

function line(y: number, kind: "axis" | "grid"): string {
  return `<line class="${kind}" x1="${plot.left}" y1="${pixels(y)}" x2="${plot.right}" y2="${pixels(y)}"/>`;
}

function rectangle(x: number, y: number, wide: number, tall: number, fill = colours[0]): string {
  return `<rect x="${pixels(x)}" y="${pixels(y)}" width="${pixels(wide)}" height="${pixels(tall)}" fill="${fill}"/>`;
}

function text(x: number, y: number, content: string, anchor: "start" | "middle" | "end"): string {
  return `<text x="${pixels(x)}" y="${pixels(y)}" text-anchor="${anchor}">${escape(content)}</text>`;
}

function pixels(value: number): string {
  return String(Number(value.toFixed(1)));
}

function escape(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
