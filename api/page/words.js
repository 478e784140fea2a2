// How figures are written: short, with their unit.

const UNKNOWN = "–";
const DOT = " · ";

const count = (value) => (value == null ? UNKNOWN : Math.round(value).toLocaleString("en-GB"));
const rate = (value) => (value == null ? UNKNOWN : value < 99.95 ? value.toFixed(1) : count(value));
const percent = (fraction) => (fraction == null ? UNKNOWN : `${Math.round(fraction * 100)} %`);
const several = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** Bytes, in units of 1024. */
function size(value) {
  if (value == null) return UNKNOWN;
  for (const unit of ["B", "KiB", "MiB"]) {
    if (Math.abs(value) < 1024) return `${Math.round(value)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} GiB`;
}

function seconds(value) {
  if (value == null) return UNKNOWN;
  if (value < 1) return `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
