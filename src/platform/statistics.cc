#include "platform/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace tensorforge::statistics {
namespace {

std::optional<double> unless_nan(double value) { return std::isnan(value) ? std::nullopt : std::optional(value); }

// Wider than double, so that a sum of large samples does not overflow.
long double wide_mean(std::span<const double> samples) {
  long double sum = 0;
  for (const double sample : samples) sum += sample;
  return sum / static_cast<long double>(samples.size());
}

}  // namespace

std::optional<double> percentile(std::span<const double> samples, double p) {
  if (samples.empty() || !(p >= 0 && p <= 100)) return std::nullopt;
  if (std::any_of(samples.begin(), samples.end(), [](double sample) { return std::isnan(sample); }))
    return std::nullopt;

  std::vector<double> ranked(samples.begin(), samples.end());
  const double rank = static_cast<double>(ranked.size() - 1) * p / 100;
  const auto below = std::min(static_cast<std::size_t>(rank), ranked.size() - 1);
  const double fraction = rank - static_cast<double>(below);
  const auto low = ranked.begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(ranked.begin(), low, ranked.end());
  if (!(fraction > 0) || low + 1 == ranked.end()) return *low;
  const double high = *std::min_element(low + 1, ranked.end());
  if (*low == high) return high;  // two infinities of one sign have no way between them
  return unless_nan(std::lerp(*low, high, fraction));
}

std::optional<double> mean(std::span<const double> samples) {
  if (samples.empty()) return std::nullopt;
  return unless_nan(static_cast<double>(wide_mean(samples)));
}

std::optional<double> stddev(std::span<const double> samples) {
  if (samples.size() < 2) return std::nullopt;
  const long double center = wide_mean(samples);
  long double squares = 0;
  for (const double sample : samples) squares += (sample - center) * (sample - center);
  return unless_nan(static_cast<double>(std::sqrt(squares / static_cast<long double>(samples.size() - 1))));
}

}  // namespace tensorforge::statistics
