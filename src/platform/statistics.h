#pragma once

#include <optional>
#include <span>

namespace tensorforge::statistics {

/// The `p`-th percentile, `p` in [0, 100], linear between the closest ranks (type 7 of Hyndman and Fan, "Sample
/// Quantiles in Statistical Packages", 1996: the default of R and NumPy). Samples need not be sorted; O(n).
/// nullopt: there is no sample, one is NaN, `p` is NaN or outside, or it lies between infinities of both signs.
std::optional<double> percentile(std::span<const double> samples, double p);
/// nullopt: there is no sample, one is NaN, or there are infinities of both signs.
std::optional<double> mean(std::span<const double> samples);
/// Of a sample: divided by n - 1. nullopt: there are fewer than two samples, or one is NaN or infinite.
std::optional<double> stddev(std::span<const double> samples);

}  // namespace tensorforge::statistics
