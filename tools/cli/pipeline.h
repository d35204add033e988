#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <utility>

#include "client/client.h"

namespace tensorforge::cli {

/// Keeps many requests of one client in flight, and hands the answers over on the caller's own thread.
///
/// Handlers run inside submit(), wait_until() and drain() alone, in the order in which the answers came, so what they
/// touch needs no lock. They may throw; what is in flight then is still waited for by the destructor, unheard.
///
/// Threads: one, beside the client's.
class Pipeline {
 public:
  using Handler = std::function<void(client::Answer)>;

  Pipeline(client::Client& client, std::size_t window) : client_(client), window_(window) {}
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  /// Waits while the window is full.
  void submit(Command command, client::CommandOptions options, Handler handler);
  void submit(Query query, Handler handler);
  template <class Condition>
  void wait_until(Condition condition) {
    while (!condition()) handle_next();
  }
  void drain() {
    wait_until([this] { return in_flight_ == 0; });
  }

 private:
  void make_room();
  void handle_next();
  client::Callback collect(Handler handler);
  std::pair<Handler, client::Answer> take();

  client::Client& client_;
  std::size_t window_;
  std::size_t in_flight_{};  // the caller's thread alone
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::pair<Handler, client::Answer>> answers_;  // under mutex_
};

}  // namespace tensorforge::cli
