#include "checkpoint/ranking.h"

#include <algorithm>
#include <iterator>

namespace tensorforge::checkpoint {

bool MetricRanking::operator()(const Ranked& a, const Ranked& b) const {
  if (a.value != b.value) return (a.value < b.value) == ascending_;
  return ByPlace()(b.node, a.node);
}

void MetricRanking::keep_best(std::vector<Ranked>& all, std::size_t n) const {
  if (n < all.size()) {
    const auto end = std::next(all.begin(), static_cast<std::ptrdiff_t>(n));
    std::nth_element(all.begin(), end, all.end(), *this);
    all.erase(end, all.end());
  }
  std::sort(all.begin(), all.end(), *this);
}

}  // namespace tensorforge::checkpoint
