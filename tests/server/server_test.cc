#include "server/server.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/client.h"
#include "tests/support/raw_peer.h"
#include "tests/support/running_server.h"

namespace tensorforge::server {
namespace {

using absl::StatusCode;
using client::Answer;
using client::Client;
using client::ClientOptions;
using test::kV1;
using test::RawPeer;
using test::registration;
using test::RunningServer;
using test::status_of;
using testing::HasSubstr;

/// Waits until a number of answers is there.
class Countdown {
 public:
  explicit Countdown(int count) : left_(count) {}
  void one() {
    if (--left_ == 0) done_.set_value();
  }
  void wait() { done_.get_future().wait(); }

 private:
  std::atomic<int> left_;
  std::promise<void> done_;
};

class ServerAndJournal : public testing::TestWithParam<bool> {};
// The two threads of a journal tell of one group in either order.
INSTANTIATE_TEST_SUITE_P(JournalTellsLate, ServerAndJournal, testing::Bool());

TEST_P(ServerAndJournal, AnswerManyRequestsInFlightOfManyClients) {
  RunningServer service({}, GetParam());
  constexpr int kClients = 4, kCommands = 300;
  std::vector<std::unique_ptr<Client>> clients;
  Countdown answers(kClients * kCommands);
  std::vector<std::vector<Sequence>> sequences(kClients);
  for (int c = 0; c < kClients; ++c) {
    clients.push_back(service.connect());
    for (int i = 0; i < kCommands; ++i) {
      clients.back()->submit(registration(fmt::format("m{}-{}", c, i)), {}, [&, c](Answer answer) {
        EXPECT_TRUE(answer.status.ok()) << answer.status;
        sequences[static_cast<std::size_t>(c)].push_back(answer.reply.sequence);
        answers.one();
      });
    }
  }
  answers.wait();
  std::set<Sequence> all;
  for (const auto& of_one : sequences) {
    EXPECT_TRUE(std::is_sorted(of_one.begin(), of_one.end())) << "answered out of order";
    all.insert(of_one.begin(), of_one.end());
  }
  EXPECT_EQ(all.size(), std::size_t{kClients} * kCommands);
  EXPECT_EQ(status_of(*clients[0]).model_versions, std::uint64_t{kClients} * kCommands);
  EXPECT_EQ(service.stop(), 0);
}

TEST(Server, ShowsOneClientWhatAnotherWasTold) {
  RunningServer service;
  const auto ann = service.connect(), bob = service.connect();
  for (int i = 0; i < 20; ++i) {
    const std::string model = fmt::format("m{}", i);
    ASSERT_TRUE(ann->call(registration(model)).status.ok());
    const Answer read = bob->call(query::GetModel{model, kV1});
    ASSERT_TRUE(read.status.ok()) << read.status;
  }
  EXPECT_EQ(bob->call(query::GetModel{"none", kV1}).status.code(), StatusCode::kNotFound);
  EXPECT_EQ(ann->call(registration("m1")).status.code(), StatusCode::kAlreadyExists);
}

TEST(Server, TellsNobodyWhatIsNotDurable) {
  RunningServer service;
  const auto client = service.connect();
  service.journal.hold();
  std::promise<Answer> changed, read;
  client->submit(registration("m"), {}, [&](Answer answer) { changed.set_value(std::move(answer)); });
  client->submit(query::GetModel{"m", kV1}, [&](Answer answer) { read.set_value(std::move(answer)); });
  service.journal.wait_for_group();
  const Sequence before = service.journal.durable_head().sequence;
  std::future<Answer> change = changed.get_future(), reading = read.get_future();
  EXPECT_EQ(change.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  EXPECT_EQ(reading.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  service.journal.release();
  EXPECT_GT(change.get().reply.sequence, before);
  EXPECT_TRUE(reading.get().status.ok());
}

TEST(Server, AnswersARetryFromTheLog) {
  RunningServer service;
  const SessionId session{1, 2, 3};
  Request request;
  request.correlation_id = 9;
  request.command_number = 1;
  request.answered_below = 1;
  request.body = registration("m");
  Sequence opened_at{};
  std::optional<Reply> first;
  {
    RawPeer peer(service.port);
    const auto welcome = peer.greet(session);
    ASSERT_TRUE(welcome);
    opened_at = welcome->opened_at;
    peer.send(ClientMessage(request));
    first = peer.reply();
    ASSERT_TRUE(first && first->status.ok());
  }
  RawPeer peer(service.port);
  ASSERT_TRUE(peer.greet(session, opened_at));
  peer.send(ClientMessage(request));
  EXPECT_EQ(peer.reply(), first);
}

std::string hello_frame() {
  Hello hello;
  hello.actor = "raw";
  return codec::encode_client_frame(hello).value();
}

TEST(Server, BadInputCostsItsSenderAlone) {
  Server::Options options;
  options.protocol.half_frame_timeout_ms = 100;
  options.protocol.hello_timeout_ms = 100;
  RunningServer service(options);
  const auto neighbour = service.connect();
  Request early;
  early.correlation_id = 1;
  early.body = query::GetStatus{};
  const struct {
    const char* name;
    std::string bytes;
  } cases[] = {
      {"a length of 4 GiB", std::string(64, '\xff')},
      {"a length of 0", std::string(64, '\0')},
      {"HTTP", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
      {"a frame of noise", std::string("\x40\0\0\0", 4) + std::string(64, '\x5a')},
      {"a request before the hello", codec::encode_client_frame(early).value()},
      {"a half frame left hanging", hello_frame().substr(0, 20)},
      {"a length left hanging", hello_frame().substr(0, 3)},
      {"nothing at all", ""},
      {"noise behind a hello", hello_frame() + std::string("\x40\0\0\0", 4) + std::string(64, '\x5a')},
      {"a half frame behind a hello", hello_frame() + hello_frame().substr(0, 20)},
  };
  for (const auto& [name, bytes] : cases) {
    SCOPED_TRACE(name);
    RawPeer peer(service.port);
    peer.send(bytes);
    std::optional<ServerMessage> last;
    while (std::optional<ServerMessage> message = peer.receive()) last = std::move(message);  // until it is closed
    if (last && std::holds_alternative<Reply>(*last)) {
      EXPECT_FALSE(std::get<Reply>(*last).status.ok());
    }
    EXPECT_TRUE(neighbour->call(query::GetStatus{}).status.ok());
  }
  EXPECT_TRUE(neighbour->call(registration("m")).status.ok());
}

TEST(Server, ASlowReaderStallsNobodyElse) {
  Server::Options options;
  options.protocol.max_output_bytes = 256 * 1024;
  RunningServer service(options);
  const auto neighbour = service.connect();
  constexpr int kModels = 40, kRequests = 400;
  for (int i = 0; i < kModels; ++i) {
    ASSERT_TRUE(neighbour->call(registration(fmt::format("m{:03}", i), 10'000)).status.ok());
  }
  // 400 answers of 400 KB each would be 160 MB: more than all buffers on the way. It asks, and does not read.
  RawPeer slow(service.port);
  ASSERT_TRUE(slow.greet());
  for (int i = 1; i <= kRequests; ++i) {
    Request request;
    request.correlation_id = static_cast<std::uint64_t>(i);
    request.body = query::ListModels{};
    ASSERT_TRUE(slow.send(ClientMessage(request)));
  }
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(neighbour->call(registration(fmt::format("n{}", i))).status.ok());
  }
  for (int i = 1; i <= kRequests; ++i) {
    const std::optional<Reply> reply = slow.reply();
    ASSERT_TRUE(reply && reply->status.ok()) << i;
    EXPECT_EQ(reply->correlation_id, static_cast<std::uint64_t>(i));
  }
}

// Some before their commands are decided, some with answers unread, some with more on the way.
TEST(Server, ClientsThatGoAtAnyTimeCostNobodyElse) {
  RunningServer service;
  const auto neighbour = service.connect();
  ASSERT_TRUE(neighbour->call(registration("read")).status.ok());
  constexpr int kThreads = 4, kRounds = 100, kRequests = 8;
  std::atomic<std::uint64_t> registered{1};  // as far as anybody was told
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int round = 0; round < kRounds; ++round) {
        RawPeer peer(service.port);
        const auto byte = [](int number) { return static_cast<std::uint8_t>(number); };
        EXPECT_TRUE(peer.greet(SessionId{byte(thread + 1), byte(round)}));
        std::string requests;
        for (std::uint64_t i = 1; i <= kRequests; ++i) {
          Request request;
          request.correlation_id = i;
          if (i % 2 == 0) {
            request.body = query::GetModel{"read", kV1};
          } else {
            request.command_number = (i + 1) / 2;
            request.body = registration(fmt::format("m{}-{}-{}", thread, round, i));
          }
          requests += codec::encode_client_frame(ClientMessage(request)).value();
        }
        EXPECT_TRUE(peer.send(requests));
        for (int answer = 0; answer < round % kRequests; ++answer) {
          const std::optional<Reply> reply = peer.reply();
          EXPECT_TRUE(reply && reply->status.ok());
          registered += answer % 2 == 0 ? 1 : 0;
        }
        peer.reset();
      }
    });
  }
  for (int i = 0; i < 100; ++i, ++registered) {
    EXPECT_TRUE(neighbour->call(registration(fmt::format("n{}", i))).status.ok());
  }
  for (std::thread& thread : threads) thread.join();
  while (status_of(*neighbour).connections > 1) {
  }
  EXPECT_GE(status_of(*neighbour).model_versions, registered);
  EXPECT_EQ(service.stop(), 0);
}

TEST(Server, GivesALargeListInPages) {
  RunningServer service;
  const auto client = service.connect();
  constexpr int kModels = 2'500;
  Countdown answers(kModels);
  for (int i = 0; i < kModels; ++i) {
    client->submit(registration(fmt::format("m{:05}", i), 400), {}, [&](Answer answer) {
      EXPECT_TRUE(answer.status.ok()) << answer.status;
      answers.one();
    });
  }
  answers.wait();
  int seen = 0, pages = 0;
  Page page{kMaxPageSize, std::nullopt};
  do {
    const Answer answer = client->call(query::ListModels{page});
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    for (const auto& model : std::get<result::Models>(answer.reply.result).models) {
      EXPECT_EQ(model.model_id, fmt::format("m{:05}", seen++));
    }
    page.token = answer.reply.next_page_token;
    ++pages;
  } while (page.token);
  EXPECT_EQ(seen, kModels);
  EXPECT_GT(pages, 1);
}

TEST(Server, ReadsTheLogBesideWriting) {
  RunningServer service;
  const auto client = service.connect(), writer = service.connect();
  constexpr int kModels = 500;
  Countdown answers(kModels);
  for (int i = 0; i < kModels; ++i) {
    writer->submit(registration(fmt::format("m{}", i % 50 == 0 ? 0 : i)), {}, [&](Answer) { answers.one(); });
  }
  const Answer history = client->call(query::ReadHistory{"server", {}});
  ASSERT_TRUE(history.status.ok()) << history.status;
  EXPECT_EQ(std::get<result::LogRecords>(history.reply.result).records.size(), 1u);
  answers.wait();
  const Answer verified = client->call(query::VerifyLog{});
  ASSERT_TRUE(verified.status.ok()) << verified.status;
  EXPECT_EQ(std::get<result::LogVerified>(verified.reply.result).sequence, status_of(*client).sequence);
  const Answer log = client->call(query::ReadLog{2, 3});
  ASSERT_TRUE(log.status.ok()) << log.status;
  EXPECT_EQ(std::get<result::LogRecords>(log.reply.result).records.size(), 3u);
}

TEST(Server, AStopAnswersWhatItTook) {
  RunningServer service;
  auto client = service.connect();
  constexpr int kCommands = 1'000;
  std::atomic<int> done = 0, unknown = 0;
  std::promise<void> some;
  for (int i = 0; i < kCommands; ++i) {
    client->submit(registration(fmt::format("m{}", i)), {}, [&](Answer answer) {
      answer.status.ok() ? ++done : ++unknown;
      if (answer.status.ok() && done == 10) some.set_value();
    });
  }
  some.get_future().wait();
  EXPECT_EQ(service.stop(), 0);
  EXPECT_EQ(Client::connect(service.client_options()).status().code(), StatusCode::kUnavailable);
  client.reset();  // answers what is still open
  EXPECT_EQ(done + unknown, kCommands);
  // What was told is in the log, and what is in the log and was not told is what the client does not know about.
  const int in_log = static_cast<int>(service.journal.durable_head().sequence) - 1;
  EXPECT_LE(done, in_log);
  EXPECT_GE(done, 10);
}

TEST(Server, AFailedDiskIsFinal) {
  RunningServer service;
  ClientOptions options = service.client_options();
  options.request_timeout = std::chrono::milliseconds(300);
  auto client = Client::connect(options);
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE((*client)->call(registration("a")).status.ok());
  service.journal.hold();
  std::promise<Answer> open;
  (*client)->submit(registration("b"), {}, [&](Answer answer) { open.set_value(std::move(answer)); });
  service.journal.wait_for_group();
  service.journal.fail(absl::UnavailableError("fsync: input/output error"));
  EXPECT_EQ(service.wait(), 3);
  const Answer answer = open.get_future().get();
  EXPECT_EQ(answer.status.code(), StatusCode::kUnavailable) << answer.status;
  EXPECT_EQ((*client)->call(registration("c")).status.code(), StatusCode::kUnavailable);
}

TEST(Server, RefusesChangesWhileTheDiskIsFullAndHeals) {
  RunningServer service;
  const auto client = service.connect();
  ASSERT_TRUE(client->call(registration("a")).status.ok());
  service.journal.set_free_bytes(1);
  Answer answer;
  for (int i = 0; answer.status.ok(); ++i) answer = client->call(registration(fmt::format("b{}", i)));
  EXPECT_EQ(answer.status.code(), StatusCode::kResourceExhausted) << answer.status;
  EXPECT_TRUE(client->call(query::GetModel{"a", kV1}).status.ok());
  EXPECT_NE(status_of(*client).changes_refused_because, "");
  service.journal.set_free_bytes(UINT64_MAX);
  do answer = client->call(registration("c"));
  while (absl::IsResourceExhausted(answer.status));
  EXPECT_TRUE(answer.status.ok()) << answer.status;
}

TEST(Server, TurnsAwayMoreConnectionsThanItMayHave) {
  Server::Options options;
  options.protocol.max_connections = 2;
  RunningServer service(options);
  auto first = std::make_unique<RawPeer>(service.port);
  ASSERT_TRUE(first->greet());
  const auto second = service.connect();
  {
    RawPeer third(service.port);
    EXPECT_FALSE(third.greet());
  }
  first.reset();
  while (status_of(*second).connections > 1) {
  }
  RawPeer fourth(service.port);
  EXPECT_TRUE(fourth.greet());
}

TEST(Listener, SaysThatAPortIsInUse) {
  RunningServer service;
  const absl::Status status = Listener::bind({"127.0.0.1", service.port}).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(fmt::format("cannot listen at 127.0.0.1:{}: Address already in use", service.port)));
}

}  // namespace
}  // namespace tensorforge::server
