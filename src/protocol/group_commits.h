#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tensorforge::protocol {

/// How long the last 4,096 writes of the journal took, from their beginning until they could be answered.
///
/// Threads: none.
class GroupCommits {
 public:
  void add(std::uint32_t microseconds) {
    last_[count_ % last_.size()] = microseconds;
    ++count_;
  }

  /// The time that `percent` of them did not pass, in microseconds; 0: there was none yet.
  std::uint32_t percentile(std::size_t percent) const {
    std::vector<std::uint32_t> held(last_.begin(), last_.begin() + std::min(count_, last_.size()));
    if (held.empty()) return 0;
    const auto at = held.begin() + static_cast<std::ptrdiff_t>((held.size() - 1) * percent / 100);
    std::nth_element(held.begin(), at, held.end());
    return *at;
  }

 private:
  std::array<std::uint32_t, 4'096> last_{};
  std::size_t count_{};
};

}  // namespace tensorforge::protocol
