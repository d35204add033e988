// `tensorforge bench` against services that answer as a test wants.
#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <asio.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "codec/frame_reader.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "tests/support/daemon.h"
#include "tests/support/programs.h"

namespace tensorforge::cli {
namespace {

using asio::ip::tcp;
using nlohmann::json;
using test::Ran;
using test::run_program;
using ::testing::HasSubstr;

/// The frames that answer a request; nullopt: the connection is closed instead.
using Answer = std::function<std::optional<std::vector<ServerMessage>>(const Request&)>;

std::optional<std::vector<ServerMessage>> one(Reply reply) { return {{std::move(reply)}}; }

/// Greets, tells a status, and answers all else with `answer`. One thread for each connection.
class FakeService {
 public:
  using Greet = std::function<ServerMessage(const Hello&)>;
  explicit FakeService(
      Answer answer, Greet greet = [](const Hello&) { return Welcome{}; })
      : answer_(std::move(answer)), greet_(std::move(greet)), acceptor_thread_([this] { accept(); }) {}
  ~FakeService() {
    over_ = true;
    std::error_code ignored;
    tcp::socket(io_).connect(acceptor_.local_endpoint(), ignored);  // wakes the acceptor
    acceptor_thread_.join();
    for (std::thread& thread : connections_) thread.join();
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port()); }

 private:
  void accept() {
    for (;;) {
      tcp::socket socket(io_);
      acceptor_.accept(socket);
      if (over_) return;
      connections_.emplace_back([this, taken = std::move(socket)]() mutable { serve(taken); });
    }
  }

  void serve(tcp::socket& socket) {
    codec::FrameReader reader;
    std::array<char, 4'096> received{};
    for (;;) {
      std::error_code error;
      const std::size_t size = socket.read_some(asio::buffer(received), error);
      if (error) return;
      reader.append(std::as_bytes(std::span(received)).first(size));
      std::string out;
      for (auto frame = reader.next(); frame->has_value(); frame = reader.next()) {
        const ClientMessage message = codec::decode_client_frame(**frame).value();
        const auto replies = replies_to(message);
        if (!replies) return;
        for (const ServerMessage& reply : *replies) out += codec::encode_server_frame(reply).value();
      }
      asio::write(socket, asio::buffer(out), error);
      if (error) return;
    }
  }

  std::optional<std::vector<ServerMessage>> replies_to(const ClientMessage& message) {
    const std::lock_guard lock(mutex_);
    if (const auto* hello = std::get_if<Hello>(&message)) return {{greet_(*hello)}};
    const auto& request = std::get<Request>(message);
    const auto* query = std::get_if<Query>(&request.body);
    if (query != nullptr && std::holds_alternative<query::GetStatus>(*query)) {
      Reply status;
      status.correlation_id = request.correlation_id;
      status.result = result::Status{};
      return one(std::move(status));
    }
    return answer_(request);
  }

  std::mutex mutex_;
  Answer answer_;  // under mutex_, as the next
  Greet greet_;
  std::atomic<bool> over_{false};
  asio::io_context io_;
  tcp::acceptor acceptor_{io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::vector<std::thread> connections_;  // of the acceptor's thread, until it has ended
  std::thread acceptor_thread_;
};

struct Asked {
  std::string operation{"register"}, clients{"1"}, seconds{"1"};
};
Ran bench_on(const FakeService& service, const Asked& asked = {}) {
  return run_program({TENSORFORGE_PROGRAM, "--server", service.address(), "--json", "bench", "--op", asked.operation,
                      "--clients", asked.clients, "--depth", "2", "--seconds", asked.seconds, "--keys", "3",
                      "--timeout", "1"});
}

/// What a service would answer to a registration.
Reply registered(const Request& request) {
  const auto& command = std::get<SingleCommand>(std::get<Command>(request.body));
  const auto model = std::get<registry::RegisterModel>(std::get<registry::Command>(command)).model.view();
  Reply reply;
  reply.correlation_id = request.correlation_id;
  reply.sequence = reply.incarnation = 1;
  reply.result = result::Registered{std::string(model.model_id), model.version, {}, 1};
  return reply;
}

TEST(BenchTest, NumbersItsRequestsAndMakesEachVersionOnce) {
  std::vector<Request> asked;
  Ran ran;
  {
    FakeService service([&](const Request& request) {
      asked.push_back(request);
      return one(registered(request));
    });
    ran = bench_on(service);
  }
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  const json report = json::parse(ran.out, nullptr, false);
  EXPECT_EQ(report["errors"], 0);
  EXPECT_EQ(report["operations"], asked.size());
  std::set<std::pair<std::string, registry::ModelVersion>> versions;
  std::set<std::string> models;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    const auto made = std::get<result::Registered>(registered(asked[i]).result);
    models.insert(made.model_id);
    EXPECT_TRUE(versions.emplace(made.model_id, made.version).second) << made.model_id;
    ASSERT_EQ(asked[i].correlation_id, i + 1);
    ASSERT_EQ(asked[i].command_number, i + 1);
    ASSERT_GT(asked[i].answered_below + 2, asked[i].command_number);
    ASSERT_LE(asked[i].answered_below, asked[i].command_number);
  }
  EXPECT_EQ(models.size(), 3U);
}

TEST(BenchTest, EachWrongAnswerIsAnError) {
  const struct {
    const char* what;
    std::function<void(Reply&)> spoil;
    const char* message;
  } cases[] = {
      {"another model", [](Reply& r) { std::get<result::Registered>(r.result).model_id = "x"; }, "does not belong"},
      {"another version", [](Reply& r) { ++std::get<result::Registered>(r.result).version.patch; }, "does not belong"},
      {"another request", [](Reply& r) { ++r.correlation_id; }, "does not belong"},
      {"another result", [](Reply& r) { r.result = result::Done{}; }, "does not belong"},
      {"a refusal", [](Reply& r) { r = {r.correlation_id, absl::NotFoundError("no disk"), 1, 1, {}, {}}; },
       "NOT_FOUND: no disk"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    int asked = 0;
    Ran ran;
    {
      FakeService service([&](const Request& request) {
        Reply reply = registered(request);
        if (++asked == 5) c.spoil(reply);
        return one(std::move(reply));
      });
      ran = bench_on(service);
    }
    EXPECT_EQ(ran.exit_code, 1) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("1 of " + std::to_string(asked) + " answers were wrong"));
    EXPECT_THAT(ran.err, HasSubstr(c.message));
    EXPECT_EQ(json::parse(ran.out, nullptr, false)["errors"], 1);
  }
}

TEST(BenchTest, WhatIsCheckedDependsOnTheOperation) {
  const struct {
    const char* operation;
    ReplyResult wrong;
  } cases[] = {{"get", result::Models{}},
               {"alloc", result::Allocated{"b-00000001-1", 1, std::size_t{8} << 20U, 0}},  // not aligned
               {"alloc", result::Allocated{"b-00000001-1", 256, 0, 0}},                    // too small
               {"checkpoint", result::Checkpoints{}}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.operation);
    FakeService service([&](const Request& request) -> std::optional<std::vector<ServerMessage>> {
      const auto* query = std::get_if<Query>(&request.body);
      Reply reply;
      reply.correlation_id = request.correlation_id;
      if (query != nullptr && std::holds_alternative<query::ListModels>(*query)) {
        result::Models models;
        for (const char* id : {"a", "bb", "ccc"}) models.models.emplace_back().model_id = id;
        reply.result = std::move(models);
        return one(std::move(reply));
      }
      const auto* command = std::get_if<Command>(&request.body);
      const auto* single = command == nullptr ? nullptr : std::get_if<SingleCommand>(command);
      const auto* gpu = single == nullptr ? nullptr : std::get_if<gpu_memory::Command>(single);
      if (gpu == nullptr || !std::holds_alternative<gpu_memory::CreatePool>(*gpu)) reply.result = c.wrong;
      return one(std::move(reply));
    });
    const Ran ran = bench_on(service, {.operation = c.operation});
    EXPECT_EQ(ran.exit_code, 1) << ran.err;
    const json report = json::parse(ran.out, nullptr, false);
    EXPECT_GT(report["operations"], 0);
    EXPECT_EQ(report["errors"], report["operations"]);
  }
}

TEST(BenchTest, AServiceThatGoesAwayEndsItAtOnce) {
  FakeService service([&](const Request& request) {
    Reply reply = registered(request);
    if (request.correlation_id == 2) reply.result = result::Done{};  // is told of no more
    return request.correlation_id < 5 ? one(std::move(reply)) : std::nullopt;
  });
  const Ran ran = bench_on(service, {.seconds = "600"});
  EXPECT_EQ(ran.exit_code, 3) << ran.err;
  EXPECT_EQ(ran.out, "");
  EXPECT_EQ(ran.err, "error: UNAVAILABLE: the connection to " + service.address() + " was closed by the service\n");
}

TEST(BenchTest, OneOfItsConnectionsMayBeLost) {
  FakeService service([](const Request& request) { return one(registered(request)); },
                      [greeted = 0](const Hello&) mutable -> ServerMessage {
                        if (++greeted != 3) return Welcome{};  // the first is that of the set-up
                        return Reply{0, absl::ResourceExhaustedError("too many"), 0, 0, {}, {}};
                      });
  const Ran ran = bench_on(service, {.clients = "2"});
  EXPECT_EQ(ran.exit_code, 1) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("1 of 2 connections were lost, and 1 answers were wrong or did not come; the first: "
                                 "RESOURCE_EXHAUSTED: too many"));
  const json report = json::parse(ran.out, nullptr, false);
  EXPECT_GT(report["operations"], 0);
  EXPECT_EQ(report["errors"], 1);
}

TEST(BenchTest, ARefusedHelloEndsItAtOnce) {
  FakeService service([](const Request& request) { return one(registered(request)); },
                      [greeted = 0](const Hello&) mutable -> ServerMessage {
                        if (++greeted == 1) return Welcome{};  // that of the set-up
                        return Reply{0, absl::FailedPreconditionError("go away"), 0, 0, {}, {}};
                      });
  const Ran ran = bench_on(service, {.seconds = "600"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_EQ(ran.err, "error: FAILED_PRECONDITION: go away\n");
}

TEST(BenchTest, AServiceThatFallsSilentIsLost) {
  FakeService service([&](const Request& request) -> std::optional<std::vector<ServerMessage>> {
    if (request.correlation_id < 5) return one(registered(request));
    return {{}};
  });
  const Ran ran = bench_on(service, {.seconds = "600"});
  EXPECT_EQ(ran.exit_code, 3) << ran.err;
  EXPECT_EQ(ran.err, "error: DEADLINE_EXCEEDED: a connection was silent for 1 s\n");
}

}  // namespace
}  // namespace tensorforge::cli
