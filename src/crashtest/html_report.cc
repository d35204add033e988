#include "crashtest/html_report.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "platform/statistics.h"

namespace tensorforge::crashtest {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --page: #ffffff; --curve: #0b63b6;
  --good: #1a7f37; --bad: #b3261e; --code: #f3f5f7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a0a8b0; --line: #3a424a; --page: #14181c;
  --curve: #6db3f2; --good: #57c46f; --bad: #ff8a80; --code: #20262c; } }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--page); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child, td.text, th.text { text-align: left; }
pre, code { font-family: ui-monospace, monospace; background: var(--code); }
pre { padding: .6rem .8rem; overflow-x: auto; } code { padding: 0 .2rem; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif;
  paint-order: stroke; stroke: var(--page); stroke-width: 4px; }
svg .soft { fill: var(--soft); } svg .grid { stroke: var(--line); } svg .curve { stroke: var(--curve); fill: none;
  stroke-width: 2; } svg .mark { stroke: var(--curve); stroke-dasharray: 3 3; }
)";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        // A page may not hold other control characters, and a path or an error can have any.
        out += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? '?' : c;
    }
  }
  return out;
}

std::string ms(double value) { return value < 10 ? fmt::format("{:.1f} ms", value) : fmt::format("{:.0f} ms", value); }

// ---- the plot: of each level the share of its recoveries that took at most so long

constexpr double kWidth = 720, kLeft = 92, kRight = 16, kRow = 96, kCurveHeight = 56, kRowTop = 26, kAxis = 28;
constexpr std::size_t kMostPoints = 200;

/// Times from `low` to `high` ms, both powers of ten, on a logarithmic axis.
struct TimeAxis {
  int low{}, high{1};  ///< exponents
  double x(double value_ms) const {
    const double position = (std::log10(std::max(value_ms, std::pow(10, low))) - low) / (high - low);
    return kLeft + std::min(position, 1.0) * (kWidth - kLeft - kRight);
  }
};

TimeAxis axis_of(const std::vector<const LevelReport*>& levels) {
  double least = 1e9, most = 0;
  for (const LevelReport* level : levels) {
    const auto [min, max] = std::minmax_element(level->total.recovery_ms.begin(), level->total.recovery_ms.end());
    least = std::min(least, *min);
    most = std::max(most, *max);
  }
  TimeAxis axis;
  axis.low = static_cast<int>(std::floor(std::log10(std::max(least, 0.001))));
  axis.high = std::max(axis.low + 1, static_cast<int>(std::ceil(std::log10(std::max(most, 0.001)))));
  return axis;
}

void plot_level(std::string& out, const LevelReport& level, const TimeAxis& axis, double top) {
  std::vector<double> sorted = level.total.recovery_ms;
  std::sort(sorted.begin(), sorted.end());
  const double p50 = *statistics::percentile(sorted, 50), p99 = *statistics::percentile(sorted, 99);
  const double base = top + kRowTop + kCurveHeight;
  auto to = std::back_inserter(out);
  fmt::format_to(to, R"(<text x="0" y="{:.1f}">{}</text>)", top + kRowTop + kCurveHeight / 2, escaped(level.level));
  fmt::format_to(to, R"(<text class="soft" x="{}" y="{:.1f}">{} recoveries; p50 {}, p99 {}, max {}</text>)", kLeft,
                 top + 16, sorted.size(), ms(p50), ms(p99), ms(sorted.back()));
  fmt::format_to(to, R"(<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>)", kLeft, base, kWidth - kRight,
                 base);
  for (const double mark : {p50, p99}) {
    fmt::format_to(to, R"(<line class="mark" x1="{0:.1f}" y1="{1:.1f}" x2="{0:.1f}" y2="{2:.1f}"/>)", axis.x(mark),
                   top + kRowTop, base);
  }
  fmt::format_to(to, R"(<polyline class="curve" points="{:.1f},{:.1f})", axis.x(sorted.front()), base);
  const std::size_t step = std::max<std::size_t>(1, sorted.size() / kMostPoints);
  for (std::size_t i = 0; i < sorted.size(); i += step) {
    const std::size_t at = std::min(i + step, sorted.size()) - 1;
    const double share = static_cast<double>(at + 1) / static_cast<double>(sorted.size());
    fmt::format_to(to, " {:.1f},{:.1f}", axis.x(sorted[at]), base - share * kCurveHeight);
  }
  out += "\"/>\n";
}

void add_plot(std::string& out, const Report& report) {
  std::vector<const LevelReport*> levels;
  for (const LevelReport& level : report.levels) {
    if (!level.total.recovery_ms.empty()) levels.push_back(&level);
  }
  out += "<h2>Times of recovery</h2>\n";
  if (levels.empty()) {
    out += "<p>None of these levels measures one.</p>\n";
    return;
  }
  const TimeAxis axis = axis_of(levels);
  const double height = kRow * static_cast<double>(levels.size()) + kAxis;
  auto to = std::back_inserter(out);
  out +=
      "<p>Opening and replay, until the service would serve: the share of the recoveries, from none to all, that "
      "took at most so long; the marks are p50 and p99.</p>\n";
  fmt::format_to(to, "<svg viewBox=\"0 0 {} {:.0f}\" role=\"img\" aria-label=\"Times of recovery by level\">\n", kWidth,
                 height);
  for (int exponent = axis.low; exponent <= axis.high; ++exponent) {
    const double value = std::pow(10, exponent), x = axis.x(value);
    fmt::format_to(to, R"(<line class="grid" x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2:.1f}"/>)", x, kRowTop,
                   height - kAxis);
    fmt::format_to(to, R"(<text class="soft" text-anchor="{}" x="{:.1f}" y="{:.1f}">{:g} ms</text>)",
                   exponent == axis.high ? "end" : "middle", x, height - kAxis + 18, value);
  }
  for (std::size_t i = 0; i < levels.size(); ++i) plot_level(out, *levels[i], axis, kRow * static_cast<double>(i));
  out += "</svg>\n";
}

// ---- tables

void add_levels(std::string& out, const Report& report) {
  out +=
      "<h2>Levels</h2>\n<div class=\"wide\"><table>\n<tr><th>Level</th><th>Runs</th><th>Seeds</th><th>Seconds</th>"
      "<th>Faults</th><th>Acknowledged</th><th>Lost</th><th>Refused</th><th>Unanswered, kept</th>"
      "<th>Unanswered, dropped</th><th>Failed runs</th></tr>\n";
  auto to = std::back_inserter(out);
  for (const LevelReport& level : report.levels) {
    std::uint64_t faults = 0;
    for (const auto& [kind, count] : level.total.faults) faults += count;
    fmt::format_to(
        to,
        "<tr><td>{}</td><td>{}</td><td>from {}</td><td>{:.1f}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
        "<td>{}</td><td>{}</td><td>{}</td></tr>\n",
        escaped(level.level), level.runs, level.first_seed, level.seconds, faults, level.total.acknowledged,
        level.total.lost, level.total.refused, level.total.unknown_kept, level.total.unknown_dropped,
        level.failures.size());
  }
  out += "</table></div>\n";
}

using Counts = std::map<std::string, std::uint64_t>;

void add_counts(std::string& out, const Report& report, std::string_view title, std::string_view what,
                Counts RunResult::*counts) {
  auto to = std::back_inserter(out);
  fmt::format_to(to,
                 "<h2>{}</h2>\n<div class=\"wide\"><table>\n<tr><th>Level</th><th class=\"text\">{}</th>"
                 "<th>Times</th></tr>\n",
                 title, what);
  for (const LevelReport& level : report.levels) {
    for (const auto& [kind, count] : level.total.*counts) {
      fmt::format_to(to, "<tr><td>{}</td><td class=\"text\">{}</td><td>{}</td></tr>\n", escaped(level.level),
                     escaped(kind), count);
    }
  }
  out += "</table></div>\n";
}

void add_failures(std::string& out, const Report& report) {
  auto to = std::back_inserter(out);
  for (const LevelReport& level : report.levels) {
    for (const Failure& failure : level.failures) {
      fmt::format_to(to, "<h2 class=\"bad\">Failed: {}, seed {}</h2>\n<p>To see it again:</p>\n<pre>{}</pre>\n<ul>\n",
                     escaped(failure.level), failure.seed, escaped(reproduce_command(failure)));
      for (const std::string& what : failure.what) fmt::format_to(to, "<li>{}</li>\n", escaped(what));
      out += "</ul>\n";
    }
  }
}

}  // namespace

std::string to_html(const Report& report) {
  std::string out = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n";
  out += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n";
  out += "<title>TensorForge crash test</title>\n<style>";
  out += kStyle;
  out += "</style>\n</head>\n<body>\n<h1>TensorForge crash test</h1>\n";
  out += report.passed()
             ? "<p class=\"good\">Nothing acknowledged was lost, and no other promise was broken.</p>\n"
             : fmt::format("<p class=\"bad\">A promise was broken; {} acknowledged changes were lost.</p>\n",
                           report.lost());
  add_failures(out, report);
  add_levels(out, report);
  add_plot(out, report);
  add_counts(out, report, "Faults injected", "Fault", &RunResult::faults);
  add_counts(out, report, "What became of damaged files", "Verdict", &RunResult::verdicts);
  out += "</body>\n</html>\n";
  return out;
}

}  // namespace tensorforge::crashtest
