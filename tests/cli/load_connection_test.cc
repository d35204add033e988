#include "tools/cli/load_connection.h"

#include <string>
#include <vector>

#include <asio.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/reply.h"

namespace tensorforge::cli {
namespace {

using asio::ip::tcp;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string frame_of(std::uint64_t correlation_id) {
  Reply reply;
  reply.correlation_id = correlation_id;
  return codec::encode_server_frame(reply).value();
}

std::string hello_of(const std::string& actor) {
  Hello hello;
  hello.actor = actor;
  return codec::encode_client_frame(hello).value();
}

/// Writes down what it is told, and answers each frame with `next`.
struct Listener final : LoadConnection::User {
  void on_frame(std::span<const std::byte> frame, LoadConnection::Time /*arrived*/) override {
    seen.push_back(std::get<Reply>(codec::decode_server_frame(frame).value()).correlation_id);
    if (connection != nullptr) connection->output() += next;
  }
  void on_lost(const absl::Status& why) override { lost.emplace_back(why.message()); }

  LoadConnection* connection{};
  std::string next;
  std::vector<std::uint64_t> seen;
  std::vector<std::string> lost;
};

class LoadConnectionTest : public ::testing::Test {
 protected:
  void connect() {
    Hello hello;
    hello.actor = "ann";
    connection_.connect("the service", {acceptor_.local_endpoint()}, hello);
    acceptor_.accept(service_);
    EXPECT_EQ(receive(hello_of("ann").size()), hello_of("ann"));
  }
  /// The next bytes that the service gets.
  std::string receive(std::size_t size) {
    service_.non_blocking(true);
    std::string bytes;
    while (bytes.size() < size) {
      io_.poll();
      std::string more(size - bytes.size(), '\0');
      std::error_code error;
      more.resize(service_.read_some(asio::buffer(more), error));
      if (error && error != asio::error::would_block) break;
      bytes += more;
    }
    return bytes;
  }
  void run_until(const auto& reached) {
    while (!reached()) io_.run_one();
  }

  asio::io_context io_;
  tcp::acceptor acceptor_{io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  tcp::socket service_{io_};
  Listener listener_;
  LoadConnection connection_{io_, listener_};
};

TEST_F(LoadConnectionTest, HandsOverEachFrameAndSendsWhatThatAdds) {
  connect();
  listener_.connection = &connection_;
  listener_.next = "next,";
  const std::string third = frame_of(3);
  asio::write(service_, asio::buffer(frame_of(1) + frame_of(2) + third.substr(0, 5)));
  EXPECT_EQ(receive(10), "next,next,");
  EXPECT_THAT(listener_.seen, ElementsAre(1, 2));
  asio::write(service_, asio::buffer(third.substr(5)));
  EXPECT_EQ(receive(5), "next,");
  EXPECT_THAT(listener_.seen, ElementsAre(1, 2, 3));
  EXPECT_THAT(listener_.lost, IsEmpty());
}

TEST_F(LoadConnectionTest, SendsInOrderWhatDoesNotFitTheSocket) {
  connect();
  std::string all;
  listener_.connection = &connection_;
  for (const char letter : {'a', 'b', 'c'}) {  // the first fills the socket's buffers, and the others wait behind it
    listener_.next.assign(std::size_t{16} << 20U, letter);
    all += listener_.next;
    asio::write(service_, asio::buffer(frame_of(1)));
    run_until([&] { return listener_.seen.size() * listener_.next.size() == all.size(); });
  }
  EXPECT_TRUE(receive(all.size()) == all);
}

TEST_F(LoadConnectionTest, TellsOnceThatTheServiceClosed) {
  connect();
  asio::write(service_, asio::buffer(frame_of(1)));
  service_.close();
  run_until([this] { return !listener_.lost.empty(); });
  EXPECT_THAT(listener_.seen, ElementsAre(1));
  EXPECT_THAT(listener_.lost, ElementsAre("the connection to the service was closed by the service"));
  io_.run();
  EXPECT_EQ(listener_.lost.size(), 1U);
}

TEST_F(LoadConnectionTest, IsLostWithWhatIsNoFrame) {
  connect();
  asio::write(service_, asio::buffer(frame_of(1) + "\xff\xff\xff\xff"));
  run_until([this] { return !listener_.lost.empty(); });
  EXPECT_THAT(listener_.seen, ElementsAre(1));
  EXPECT_THAT(listener_.lost, ElementsAre(HasSubstr("brought a frame over 1 MiB")));
}

TEST_F(LoadConnectionTest, SaysThatNobodyListens) {
  tcp::acceptor taken(io_);  // bound and not listening: the port is refused for sure
  taken.open(tcp::v4());
  taken.bind({asio::ip::address_v4::loopback(), 0});
  connection_.connect("it", {taken.local_endpoint()}, {});
  io_.run();
  EXPECT_THAT(listener_.lost, ElementsAre(HasSubstr("cannot be made: Connection refused")));
}

TEST_F(LoadConnectionTest, TriesAllAddressesOfTheService) {
  tcp::acceptor taken(io_);
  taken.open(tcp::v4());
  taken.bind({asio::ip::address_v4::loopback(), 0});
  connection_.connect("it", {taken.local_endpoint(), acceptor_.local_endpoint()}, {});
  acceptor_.async_accept(service_, [](std::error_code) {});
  while (!service_.is_open()) io_.run_one();
  EXPECT_THAT(listener_.lost, IsEmpty());
}

TEST_F(LoadConnectionTest, IsSilentOnceItIsClosed) {
  connect();
  asio::write(service_, asio::buffer(frame_of(1)));
  connection_.close();
  io_.run();
  EXPECT_THAT(listener_.seen, IsEmpty());
  EXPECT_THAT(listener_.lost, IsEmpty());
}

}  // namespace
}  // namespace tensorforge::cli
