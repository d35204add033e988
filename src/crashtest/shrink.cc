#include "crashtest/shrink.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace tensorforge::crashtest {
namespace {

class Shrinking {
 public:
  Shrinking(Portion failing, const std::function<bool(const Portion&)>& fails)
      : failing_(std::move(failing)), fails_(fails) {}

  Portion run() {
    do {
      shrunk_ = false;
      if (failing_.faults) drop_faults();
      lower(&Portion::clients);
      lower(&Portion::operations);
    } while (shrunk_);
    return std::move(failing_);
  }

 private:
  bool take(const Portion& smaller) {
    if (smaller == failing_ || !fails_(smaller)) return false;
    failing_ = smaller;
    shrunk_ = true;
    return true;
  }

  /// Half of them at a time, then less and less.
  void drop_faults() {
    for (std::size_t size = std::max<std::size_t>(failing_.faults->size() / 2, 1); size > 0; size /= 2) {
      for (std::size_t begin = 0; begin < failing_.faults->size();) {
        Portion smaller = failing_;
        const auto first = smaller.faults->begin() + static_cast<std::ptrdiff_t>(begin);
        const std::size_t left = smaller.faults->size() - begin;
        smaller.faults->erase(first, first + static_cast<std::ptrdiff_t>(std::min(size, left)));
        if (!take(smaller)) begin += size;
      }
    }
  }

  /// Likewise, and never to 0.
  void lower(std::optional<std::uint64_t> Portion::*number) {
    if (!(failing_.*number)) return;
    for (std::uint64_t step = *(failing_.*number) / 2; step > 0;) {
      Portion smaller = failing_;
      std::uint64_t& value = *(smaller.*number);
      value -= std::min(step, value - 1);
      if (!take(smaller)) step /= 2;
    }
  }

  Portion failing_;
  const std::function<bool(const Portion&)>& fails_;
  bool shrunk_{};
};

}  // namespace

Portion shrink(Portion failing, const std::function<bool(const Portion&)>& fails) {
  return Shrinking(std::move(failing), fails).run();
}

}  // namespace tensorforge::crashtest
