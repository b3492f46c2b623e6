import { formatFigure } from "../report.ts";

/** Bars in groups, one of each series in every group. */
export interface BarChart {
  /** What is shown, with its unit. */
  readonly title: string;
  readonly series: readonly string[];
  readonly groups: readonly { readonly label: string; readonly values: readonly number[] }[];
}

// In pixels.
const width = 760;
const plot = { left: 24, right: width - 24, top: 76, bottom: 286 };
const height = 328;
const gap = 6;

/** Told apart also by who sees no red or no green, on light and on dark. */
const colours = ["#2f6feb", "#d1791f", "#8a63c9", "#4f8f5b"];

/** Brings its own ground, so that it reads the same whatever is around it. */
const style = `
  .ground { fill: #ffffff; stroke: #d0d7de; }
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .axis { stroke: #59636e; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #161b22; stroke: #3d444d; }
    text { fill: #e6edf3; }
    .axis { stroke: #9198a1; }
  }`;

/** Draws a chart as SVG: a linear scale from zero, and its value above each bar. */
export function drawBarChart({ title, series, groups }: BarChart): string {
  const greatest = Math.max(...groups.flatMap(({ values }) => values));
  const groupWidth = (plot.right - plot.left) / groups.length;
  const barWidth = Math.min(72, (groupWidth - 32) / series.length - gap);
  const bars = groups.flatMap(({ label, values }, group) => {
    const middle = plot.left + groupWidth * (group + 0.5);
    const first = middle - (series.length * (barWidth + gap) - gap) / 2;
    return [
      ...values.map((value, index) => {
        const x = first + index * (barWidth + gap);
        const tall = ((plot.bottom - plot.top - 18) * value) / greatest;
        const y = plot.bottom - tall;
        return `${rectangle(x, y, barWidth, tall, colours[index])}${text(x + barWidth / 2, y - 6, formatFigure(value), "middle")}`;
      }),
      text(middle, plot.bottom + 22, label, "middle"),
    ];
  });
  const legend = series.map((name, index) => {
    const x = plot.left + index * 220;
    return `${rectangle(x, 44, 12, 12, colours[index])}${text(x + 18, 55, name, "start")}`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escape(title)}">
<style>${style}
</style>
<rect class="ground" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8"/>
<text class="title" x="${plot.left}" y="28">${escape(title)}</text>
${[...legend, ...bars].join("\n")}
<line class="axis" x1="${plot.left}" y1="${plot.bottom}" x2="${plot.right}" y2="${plot.bottom}"/>
</svg>
`;
}

function rectangle(x: number, y: number, wide: number, tall: number, fill = colours[0]): string {
  return `<rect x="${pixels(x)}" y="${pixels(y)}" width="${pixels(wide)}" height="${pixels(tall)}" fill="${fill}"/>`;
}

function text(x: number, y: number, content: string, anchor: "start" | "middle"): string {
  return `<text x="${pixels(x)}" y="${pixels(y)}" text-anchor="${anchor}">${escape(content)}</text>`;
}

function pixels(value: number): string {
  return String(Number(value.toFixed(1)));
}

function escape(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
