#include "server/connection.h"

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <asio.hpp>
#include <gtest/gtest.h>

namespace tensorforge::server {
namespace {

using asio::ip::tcp;

/// A connection and its peer, in one thread.
class ConnectionTest : public testing::Test {
 protected:
  ConnectionTest() {
    tcp::acceptor acceptor(io_, {asio::ip::address_v4::loopback(), 0});
    peer_.connect(acceptor.local_endpoint());
    tcp::socket socket = acceptor.accept();
    socket.set_option(tcp::socket::send_buffer_size(4'096));
    connection_ = std::make_shared<Connection>(std::move(socket));
    connection_->start({[this](std::span<const std::byte> bytes) { received_ += bytes.size(); },
                        [this](std::size_t size) { told_ += size; }, [this] { ++gone_; }, [this] { ++closed_; }});
    peer_.non_blocking(true);
  }
  ~ConnectionTest() override {
    connection_->close(0);
    connection_->on_tick(1);
    run();
  }

  /// Until nothing more is ready.
  void run() {
    io_.restart();
    while (io_.poll() > 0) {
    }
  }
  /// Different everywhere, so that what is lost, twice or elsewhere shows.
  std::string next_bytes(std::size_t size) {
    std::string bytes;
    while (bytes.size() < size) bytes += std::to_string(number_++) + ' ';
    bytes.resize(size);
    return bytes;
  }
  void send(std::size_t size) {
    const std::string bytes = next_bytes(size);
    given_ += bytes;
    taken_ += connection_->send(bytes);
  }
  /// What has come to the peer; false: and then the end.
  bool take() {
    std::vector<char> buffer(65'536);
    for (;;) {
      std::error_code error;
      const std::size_t size = peer_.read_some(asio::buffer(buffer), error);
      came_.append(buffer.data(), size);
      if (error == asio::error::would_block) return true;
      if (error) return false;
    }
  }
  /// Goes on until the peer has all that was given, or sees the end.
  void deliver() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (came_.size() < given_.size() && std::chrono::steady_clock::now() < deadline) {
      const bool open = take();
      run();
      if (!open) return;
    }
  }
  /// More than all buffers on the way hold: the connection keeps a rest.
  void fill() {
    while (taken_ == given_.size()) send(1 << 20);
  }

  asio::io_context io_{1};
  tcp::socket peer_{io_};
  std::shared_ptr<Connection> connection_;
  std::string given_, came_;
  std::size_t taken_{}, told_{}, received_{};
  int number_{}, gone_{}, closed_{};
};

TEST_F(ConnectionTest, SendsAtOnce) {
  send(100);
  send(0);
  send(1);
  EXPECT_EQ(taken_, 101u);
  deliver();
  EXPECT_EQ(came_, given_);
  EXPECT_EQ(told_, 0u) << "it was said by send()";
}

TEST_F(ConnectionTest, WhatTheSocketDoesNotTakeFollowsInOrder) {
  fill();
  const std::size_t at_once = taken_;
  send(10);  // behind the rest
  send(100'000);
  EXPECT_EQ(taken_, at_once) << "nothing overtakes the rest";
  deliver();
  EXPECT_EQ(came_, given_);
  EXPECT_EQ(taken_ + told_, given_.size()) << "each byte is told once";
  const std::size_t before = taken_;
  send(7);
  EXPECT_EQ(taken_, before + 7) << "and then it goes at once again";
  deliver();
  EXPECT_EQ(came_, given_);
  EXPECT_EQ(gone_ + closed_, 0);
}

TEST_F(ConnectionTest, APeerThatHasResetIsToldOnceAndNotInsideSend) {
  peer_.set_option(tcp::socket::linger(true, 0));
  peer_.close();
  for (int i = 0; i < 3; ++i) {
    send(1'000);
    EXPECT_EQ(gone_, 0);
  }
  run();
  EXPECT_EQ(gone_, 1);
  send(1'000);
  run();
  EXPECT_EQ(gone_, 1);
  EXPECT_EQ(closed_, 0);
}

TEST_F(ConnectionTest, WhatWasTakenReachesAPeerThatIsClosedThen) {
  send(1'000);
  connection_->close(1'000);
  EXPECT_EQ(connection_->send("behind it"), 0u);
  run();
  EXPECT_FALSE(take()) << "the end of the stream";
  EXPECT_EQ(came_, given_);
  EXPECT_EQ(closed_, 0) << "the peer may still be reading";
  peer_.close();
  run();
  EXPECT_EQ(closed_, 1);
  EXPECT_EQ(gone_, 0);
}

TEST_F(ConnectionTest, ARestIsDroppedWhenItIsClosed) {
  fill();
  connection_->close(1'000);
  run();
  EXPECT_EQ(closed_, 1);
  EXPECT_EQ(gone_, 0);
  take();
  EXPECT_EQ(given_.substr(0, came_.size()), came_);
}

TEST_F(ConnectionTest, ReadsUnlessItIsPaused) {
  connection_->pause();
  asio::write(peer_, asio::buffer("first", 5));  // the read was under way
  run();
  EXPECT_EQ(received_, 5u);
  asio::write(peer_, asio::buffer("second", 6));
  run();
  EXPECT_EQ(received_, 5u);
  connection_->resume();
  run();
  EXPECT_EQ(received_, 11u);
}

}  // namespace
}  // namespace tensorforge::server
