#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <asio/ip/tcp.hpp>

namespace tensorforge::server {

/// One socket: reads while it may, and sends what it is given.
///
/// That goes out at once, as far as the socket takes it; the rest follows when it takes more, and what is given
/// meanwhile gathers behind it for one write. Reading and writing run on the thread of the socket's context;
/// so do all calls.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  /// What its owner is told. `gone` comes once, unless it was closed by close().
  struct Events {
    std::function<void(std::span<const std::byte>)> bytes;
    std::function<void(std::size_t)> sent;  ///< of what send() left over
    std::function<void()> gone;
    std::function<void()> closed;  ///< after close(), when the socket is gone
  };

  explicit Connection(asio::ip::tcp::socket socket) : socket_(std::move(socket)) {}
  void start(Events events);

  /// How many bytes the socket took at once; `sent` tells of the others, or `gone`, and neither before this returns.
  std::size_t send(std::string_view bytes);
  void pause() { paused_ = true; }
  void resume();
  /// Closes; what the socket did not take is dropped. What it took reaches the peer, which has until `deadline_ms`
  /// (boot clock) to close its side.
  void close(std::uint64_t deadline_ms);
  /// Closes at once where the deadline has passed.
  void on_tick(std::uint64_t boot_ms);

 private:
  enum class Phase { Open, Lingering, Closed };
  void read();
  void write();
  void on_write(std::size_t size);
  void lose();
  void abort();

  static constexpr std::size_t kReadBytes = std::size_t{16} * 1024;  // of one read; every connection has a buffer of it

  asio::ip::tcp::socket socket_;
  Events events_;
  // Not set to zero: a connection with small requests touches only its first page.
  std::unique_ptr<std::byte[]> received_ = std::make_unique_for_overwrite<std::byte[]>(kReadBytes);
  std::string gathered_, sending_;
  std::size_t sent_{};  // of sending_
  std::uint64_t deadline_ms_{};
  Phase phase_{Phase::Open};
  bool reading_{}, paused_{};
};

}  // namespace tensorforge::server
