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

/// nullopt: the connection is closed instead.
using Answer = std::function<std::optional<Reply>(const Request&)>;

/// Greets, tells a status, and answers all else with `answer`. One thread for each connection.
class FakeService {
 public:
  explicit FakeService(Answer answer) : answer_(std::move(answer)), acceptor_thread_([this] { accept(); }) {}
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
        const auto* request = std::get_if<Request>(&message);
        const std::optional<ServerMessage> reply = request == nullptr ? ServerMessage(Welcome{}) : reply_to(*request);
        if (!reply) return;
        out += codec::encode_server_frame(*reply).value();
      }
      asio::write(socket, asio::buffer(out), error);
      if (error) return;
    }
  }

  std::optional<ServerMessage> reply_to(const Request& request) {
    const auto* query = std::get_if<Query>(&request.body);
    if (query != nullptr && std::holds_alternative<query::GetStatus>(*query)) {
      Reply status;
      status.correlation_id = request.correlation_id;
      status.result = result::Status{};
      return status;
    }
    const std::lock_guard lock(mutex_);
    return answer_(request);
  }

  Answer answer_;
  std::mutex mutex_;  // of answer_
  std::atomic<bool> over_{false};
  asio::io_context io_;
  tcp::acceptor acceptor_{io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::vector<std::thread> connections_;  // of the acceptor's thread, until it has ended
  std::thread acceptor_thread_;
};

Ran bench_on(const std::string& address, const std::string& seconds = "1") {
  return run_program({TENSORFORGE_PROGRAM, "--server", address, "--json", "bench", "--op", "register", "--clients", "1",
                      "--depth", "2", "--seconds", seconds, "--keys", "3"});
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
      return registered(request);
    });
    ran = bench_on(service.address());
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
        return reply;
      });
      ran = bench_on(service.address());
    }
    EXPECT_EQ(ran.exit_code, 1) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("1 of " + std::to_string(asked) + " answers were wrong"));
    EXPECT_THAT(ran.err, HasSubstr(c.message));
    EXPECT_EQ(json::parse(ran.out, nullptr, false)["errors"], 1);
  }
}

TEST(BenchTest, AServiceThatGoesAwayEndsItAtOnce) {
  std::optional<Reply> none;
  FakeService service([&](const Request& request) { return request.correlation_id < 5 ? registered(request) : none; });
  const Ran ran = bench_on(service.address(), "600");
  EXPECT_EQ(ran.exit_code, 3) << ran.err;
  EXPECT_EQ(ran.out, "");
  EXPECT_EQ(ran.err, "error: UNAVAILABLE: the connection to " + service.address() + " was closed by the service\n");
}

}  // namespace
}  // namespace tensorforge::cli
