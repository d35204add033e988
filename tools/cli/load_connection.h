#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include "codec/frame_reader.h"
#include "codec/request.h"
#include "platform/result.h"

namespace tensorforge::cli {

/// A connection of the load generator, which is to cost as little as it can beside the service that it measures. It
/// carries frames and keeps nothing: unlike client::Client it does not find the request of an answer, since the service
/// answers in the order in which it was asked, and it does not try again: what was measured across a restart says
/// nothing.
///
/// Threads: one, which runs `io`. It must not go while `io` runs.
class LoadConnection {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// What is done with what comes.
  class User {
   public:
    virtual ~User() = default;
    /// A frame of the service, the welcome first; valid during the call. `arrived`: when it could be read.
    virtual void on_frame(std::span<const std::byte> frame, Time arrived) = 0;
    /// Nothing comes after this, nor after close().
    virtual void on_lost(const absl::Status& why) = 0;
  };

  LoadConnection(asio::io_context& io, User& user) : socket_(io), user_(user) {}

  /// Once, to the first of `endpoints` that answers, with `hello` as what is sent first. `service` is what messages
  /// call it.
  void connect(std::string service, const std::vector<asio::ip::tcp::endpoint>& endpoints, const Hello& hello);
  /// Whole frames that are added here are sent after the call of `user` which adds them.
  std::string& output() { return output_; }
  /// Also inside a call of `user`.
  void close();

 private:
  void read();
  void on_bytes(std::size_t size);
  void write();
  void lose(const std::string& what);

  asio::ip::tcp::socket socket_;
  std::string service_;
  User& user_;
  codec::FrameReader input_;
  std::array<char, std::size_t{64} << 10U> received_{};
  std::string output_, sending_;
  bool writing_{}, over_{};
};

}  // namespace tensorforge::cli
