#include "checkpoint/metric_index.h"

#include "checkpoint/projection.h"

namespace tensorforge::checkpoint {

bool MetricIndex::ByValue::operator()(const Entry& a, const Entry& b) const {
  if (a.value != b.value) return a.value < b.value;
  if (a.step != b.step) return a.step < b.step;
  return ByPlace()(a.node, b.node);
}

void MetricIndex::best_first(bool ascending, const std::optional<Entry>& after,
                             const std::function<bool(const Entry&)>& visit) const {
  auto end = after ? by_value_.lower_bound(*after) : by_value_.end();
  if (!ascending) {
    while (end != by_value_.begin()) {
      if (!visit(*--end)) return;
    }
    return;
  }
  // From one value to the next higher one, and among equal ones backwards.
  if (by_value_.empty()) return;
  double value = after ? after->value : by_value_.begin()->value;
  if (!after) end = by_value_.upper_bound(value);
  for (;;) {
    while (end != by_value_.begin()) {
      --end;
      if (end->value != value) break;
      if (!visit(*end)) return;
    }
    const auto next = by_value_.upper_bound(value);
    if (next == by_value_.end()) return;
    value = next->value;
    end = by_value_.upper_bound(value);
  }
}

}  // namespace tensorforge::checkpoint
