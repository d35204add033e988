#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "crashtest/random.h"
#include "platform/log_types.h"

namespace tensorforge::crashtest {

/// Bytes on their way in one direction.
class SimulatedPipe {
 public:
  void put(std::string_view bytes) { bytes_ += bytes; }
  /// The next ones, as many as the network likes to deliver at once: 1 to `grain`, and now and then all (0: always).
  std::string take(std::mt19937_64& random, std::size_t grain) {
    const std::size_t held = bytes_.size() - begin_;
    const bool all = grain == 0 || one_in(random, 128);
    const std::size_t size = all ? held : std::min<std::size_t>(held, between(random, 1, grain));
    std::string some = bytes_.substr(begin_, size);
    begin_ += size;
    if (begin_ == bytes_.size()) clear();
    return some;
  }
  void clear() {
    bytes_.clear();
    begin_ = 0;
  }
  bool empty() const { return bytes_.empty(); }
  std::size_t size() const { return bytes_.size() - begin_; }

 private:
  std::string bytes_;
  std::size_t begin_{};
};

/// A connection as the two ends see it, which need not be the same.
struct SimulatedConnection {
  std::size_t client{};
  bool client_open{true}, service_open{true};
  bool paused{};           ///< the service does not read
  bool cut{};              ///< what is sent is lost
  bool service_unaware{};  ///< the service does not hear that it is closed
  std::size_t grain{};     ///< the most bytes that arrive together; 0: all
  SimulatedPipe to_service, to_client;
  bool to_service_due{}, to_client_due{};                   ///< a delivery is on the clock
  std::uint64_t to_service_from_us{}, to_client_from_us{};  ///< nothing arrives before: it stalls

  /// What was durable when the bytes up to `end` were sent to the client.
  struct Sent {
    std::uint64_t end{};
    Sequence durable{};
  };
  std::deque<Sent> sent;
  std::uint64_t sent_bytes{}, delivered_bytes{};

  void send_to_client(std::string_view bytes, Sequence durable) {
    sent_bytes += bytes.size();
    sent.push_back({sent_bytes, durable});
    to_client.put(bytes);
  }
  /// `bytes` more arrive: what was durable when the last of them was sent.
  Sequence deliver_to_client(std::size_t bytes) {
    delivered_bytes += bytes;
    while (sent.size() > 1 && sent.front().end < delivered_bytes) sent.pop_front();
    return sent.front().durable;
  }
};

}  // namespace tensorforge::crashtest
