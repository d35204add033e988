#include "client/client.h"

#include <string>
#include <thread>

#include <asio.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::client {
namespace {

using absl::StatusCode;
using asio::ip::tcp;
using testing::HasSubstr;

const tcp::endpoint kAnyPort(asio::ip::address_v4::loopback(), 0);

ClientOptions options_for(std::uint16_t port) {
  ClientOptions options;
  options.server = "127.0.0.1:" + std::to_string(port);
  options.actor = "ann";
  return options;
}

TEST(Client, SaysThatNobodyListens) {
  asio::io_context io;
  tcp::acceptor taken(io);  // bound and not listening: the port is refused for sure
  taken.open(tcp::v4());
  taken.bind(kAnyPort);
  const std::uint16_t port = taken.local_endpoint().port();
  const absl::Status status = Client::connect(options_for(port)).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(std::string(status.message()),
            "cannot connect to 127.0.0.1:" + std::to_string(port) + ": connection refused; is tensorforged running?");
}

TEST(Client, RefusesAnAddressThatIsNone) {
  ClientOptions options;
  options.server = "nowhere";
  EXPECT_EQ(Client::connect(options).status().code(), StatusCode::kInvalidArgument);
  asio::io_context io;
  EXPECT_EQ(Client::start(io, options).status().code(), StatusCode::kInvalidArgument);
}

TEST(Client, DoesNotWaitForEverForAWelcome) {
  asio::io_context io;
  tcp::acceptor silent(io, kAnyPort);
  ClientOptions options = options_for(silent.local_endpoint().port());
  options.connect_timeout = std::chrono::milliseconds(30);
  EXPECT_THAT(std::string(Client::connect(options).status().message()), HasSubstr("no welcome from the service"));
}

TEST(Client, OnACallersContextAnswersAtTheDeadlineWithoutAConnection) {
  asio::io_context io;
  tcp::acceptor taken(io);
  taken.open(tcp::v4());
  taken.bind(kAnyPort);
  ClientOptions options = options_for(taken.local_endpoint().port());
  options.request_timeout = std::chrono::milliseconds(50);
  auto client = Client::start(io, options);
  ASSERT_TRUE(client.ok()) << client.status();
  Answer answer;
  (*client)->submit(query::GetStatus{}, [&](Answer got) {
    answer = std::move(got);
    client->reset();  // in its own callback's context: the context then runs out of work
  });
  io.run();
  EXPECT_EQ(answer.status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(answer.status.message()), HasSubstr("connection refused"));
}

TEST(Client, AnswersWhatIsOpenWhenItEnds) {
  asio::io_context io;
  tcp::acceptor silent(io, kAnyPort);
  std::thread runner;
  Answer answer;
  {
    auto client = Client::start(io, options_for(silent.local_endpoint().port()));
    ASSERT_TRUE(client.ok()) << client.status();
    (*client)->submit(query::GetStatus{}, [&](Answer got) { answer = std::move(got); });
    runner = std::thread([&] { io.run(); });
  }
  runner.join();
  EXPECT_EQ(answer.status.code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace tensorforge::client
