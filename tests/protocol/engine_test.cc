#include "protocol/engine.h"

#include <gmock/gmock.h>

#include "tests/support/engine_bench.h"

namespace tensorforge::test {
namespace {

using absl::StatusCode;
using registry::DeploymentState;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

std::vector<std::uint64_t> correlations(const std::vector<Reply>& replies) {
  std::vector<std::uint64_t> all;
  for (const Reply& reply : replies) all.push_back(reply.correlation_id);
  return all;
}
/// A request under the command number of its correlation id.
std::string frame_of(std::uint64_t number, decltype(Request::body) body) {
  Request request;
  request.correlation_id = request.command_number = number;
  request.body = std::move(body);
  return codec::encode_client_frame(request).value();
}
/// It arrives; what is to be done for it is not asked yet.
void arrive_at(protocol::Engine& engine, ConnectionId id, std::uint64_t number, decltype(Request::body) body) {
  const std::string frame = frame_of(number, std::move(body));
  engine.on_bytes(id, std::as_bytes(std::span(frame)));
}
/// By connection 1.
void arrive(protocol::Engine& engine, std::uint64_t number, decltype(Request::body) body) {
  arrive_at(engine, 1, number, std::move(body));
}
/// Likewise, to register a model of that number.
void arrive(protocol::Engine& engine, std::uint64_t number) {
  arrive(engine, number, Command(register_model("m" + std::to_string(number))));
}
std::string message_of(const Reply& reply) { return std::string(reply.status.message()); }

// ---- hello

TEST(Engine, WelcomesAHello) {
  EngineBench bench;
  bench.hello(1);
  const Welcome* welcome = bench.welcome(1);
  ASSERT_NE(welcome, nullptr);
  EXPECT_EQ(*welcome, (Welcome{1, kLogId, kIncarnation, 1, 1, "tensorforged 0.1.0"}));
}

TEST(Engine, RefusesAHelloThatItCannotServeAndCloses) {
  const auto with = [](auto change) {
    Hello hello = session_hello();
    change(hello);
    return hello;
  };
  const struct {
    const char* name;
    Hello hello;
    StatusCode want;
  } cases[] = {
      {"a later protocol", with([](Hello& h) { h.lowest_protocol = h.highest_protocol = 2; }),
       StatusCode::kFailedPrecondition},
      {"no actor", with([](Hello& h) { h.actor = ""; }), StatusCode::kInvalidArgument},
      {"an incarnation of another log", with([](Hello& h) { h.seen_sequence = 1, h.seen_incarnation = 7; }),
       StatusCode::kDataLoss},
      {"a sequence behind the log's end",
       with([](Hello& h) { h.seen_sequence = 9, h.seen_incarnation = kIncarnation; }), StatusCode::kDataLoss},
      {"a session opened behind the log's end", with([](Hello& h) { h.opened_at = 9; }), StatusCode::kDataLoss},
      {"a session at the horizon", with([](Hello& h) { h.opened_at = 0; }), StatusCode::kFailedPrecondition},
  };
  for (const auto& [name, hello, want] : cases) {
    SCOPED_TRACE(name);
    EngineBench bench;
    bench.hello(1, hello);
    ASSERT_THAT(bench.replies(1), SizeIs(1));
    EXPECT_EQ(bench.replies(1)[0].status.code(), want);
    EXPECT_EQ(bench.replies(1)[0].correlation_id, 0u);
    EXPECT_FALSE(bench.peer(1).open);
    EXPECT_EQ(bench.engine().connection_count(), 0u);
  }
}

TEST(Engine, TheFirstMessageIsAHelloAndTheOnlyOne) {
  EngineBench bench;
  bench.connect(1);
  bench.query(1, 1, query::ListModels{});
  EXPECT_EQ(bench.replies(1).at(0).status.code(), StatusCode::kFailedPrecondition);
  EXPECT_FALSE(bench.peer(1).open);
  bench.hello(2);
  bench.send(2, session_hello());
  EXPECT_EQ(bench.replies(2).at(0).status.code(), StatusCode::kFailedPrecondition);
  EXPECT_FALSE(bench.peer(2).open);
}

TEST(Engine, ASecondHelloOfASessionClosesTheFirstConnection) {
  EngineBench bench;
  bench.hello(1);
  bench.command(1, 1, register_model("a"));
  bench.hello(2);
  EXPECT_FALSE(bench.peer(1).open);
  bench.command(2, 1, register_model("a"));
  bench.settle();
  bench.run_reads();
  EXPECT_THAT(bench.replies(1), IsEmpty());
  ASSERT_THAT(bench.replies(2), SizeIs(1));
  EXPECT_TRUE(bench.replies(2)[0].status.ok());
  EXPECT_EQ(bench.state().sequence, 2u) << "it ran once";
}

TEST(Engine, AHelloThatTakesOverTheSessionOfOneThatArrivedBesideItComesFirst) {
  EngineBench bench;
  bench.connect(2);
  bench.hello(3);
  // Both in one turn, so they are decoded together; the hello has arrived first.
  const std::string hello = codec::encode_client_frame(session_hello()).value();
  bench.engine().on_bytes(2, std::as_bytes(std::span(hello)));
  arrive_at(bench.engine(), 3, 1, Command(register_model("a")));
  bench.carry();
  bench.settle();
  EXPECT_FALSE(bench.peer(3).open);
  EXPECT_THAT(bench.replies(3), IsEmpty());
  EXPECT_FALSE(bench.state().registry.latest("a")) << "it was not taken any more";
  ASSERT_NE(bench.welcome(2), nullptr);
  bench.command(2, 1, register_model("b"));
  bench.settle();
  ASSERT_THAT(bench.replies(2), SizeIs(1));
  EXPECT_TRUE(bench.replies(2)[0].status.ok());
}

TEST(Engine, WhatWasDecodedTogetherWaitsWhereTheGroupIsFull) {
  constexpr ConnectionId kPeers = 6;
  protocol::Config config;
  config.max_gathered_bytes = 1;
  EngineBench bench(config);
  for (ConnectionId id = 1; id <= kPeers; ++id) bench.hello(id, session_hello({static_cast<std::uint8_t>(id)}));
  for (ConnectionId id = 1; id <= kPeers; ++id) {
    arrive_at(bench.engine(), id, 1, Command(register_model("m" + std::to_string(id))));
  }
  bench.carry();
  EXPECT_EQ(bench.state().registry.model_count(), 1u);
  while (bench.more_work()) bench.turn();
  for (std::size_t taken = 2; taken <= kPeers; ++taken) {  // one is written, and one gathers
    ASSERT_EQ(bench.state().registry.model_count(), taken);
    bench.sync();
    while (bench.more_work()) bench.turn();
  }
  bench.settle();
  for (ConnectionId id = 1; id <= kPeers; ++id) {
    ASSERT_THAT(bench.replies(id), SizeIs(1)) << id;
    EXPECT_TRUE(bench.replies(id)[0].status.ok());
  }
}

TEST(Engine, WithoutASessionAConnectionOnlyReads) {
  EngineBench bench;
  Hello hello = session_hello();
  hello.session.reset();
  bench.hello(1, hello);
  bench.command(1, 1, register_model("a"));
  bench.query(1, 2, query::ListModels{});
  EXPECT_EQ(bench.replies(1).at(0).status.code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(bench.replies(1).at(1).status.ok());
}

// ---- nothing uncommitted is visible

TEST(Engine, HoldsEveryAnswerUntilItIsAnchored) {
  EngineBench bench;
  bench.hello(1);
  bench.hello(2, session_hello(SessionId{2}));
  bench.command(1, 1, register_model("a"));
  bench.query(2, 1, query::GetModel{"a", std::nullopt});  // a read of what is not durable
  bench.command(2, 2, register_model("a"));               // a refusal that rests on it
  bench.hello(3, session_hello(SessionId{3}));            // a welcome that tells the sequence
  EXPECT_THAT(bench.replies(1), IsEmpty());
  EXPECT_THAT(bench.replies(2), IsEmpty());
  EXPECT_EQ(bench.welcome(3), nullptr);
  ASSERT_TRUE(bench.sync());
  EXPECT_THAT(bench.replies(1), IsEmpty()) << "synced is not anchored";
  EXPECT_THAT(bench.replies(2), IsEmpty());
  ASSERT_TRUE(bench.anchor());
  EXPECT_EQ(bench.replies(1).at(0).sequence, 2u);
  EXPECT_TRUE(bench.replies(2).at(0).status.ok());
  EXPECT_EQ(bench.replies(2).at(1).status.code(), StatusCode::kAlreadyExists);
  ASSERT_NE(bench.welcome(3), nullptr);
  EXPECT_EQ(bench.welcome(3)->sequence, 2u);
}

TEST(Engine, TheNextGroupGathersWhileOneIsSynced) {
  EngineBench bench;
  bench.hello(1);
  for (std::uint64_t n = 1; n <= 10; ++n) bench.command(1, n, register_model("m" + std::to_string(n)));
  ASSERT_TRUE(bench.sync());
  EXPECT_TRUE(bench.journal().sync_waits()) << "the anchor is not waited for";
  ASSERT_TRUE(bench.anchor());
  EXPECT_THAT(correlations(bench.replies(1)), ElementsAre(1));
  bench.settle();
  EXPECT_THAT(correlations(bench.replies(1)), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_EQ(bench.syncs(), 2u) << "all that waited was one write";
  EXPECT_EQ(bench.replayed().digest(), bench.state().digest());
}

TEST(Engine, AReadWaitsForTheGroupInFlightAndTheOneGatheringAndForNoMore) {
  EngineBench bench;
  bench.hello(1);
  bench.hello(2, session_hello(SessionId{2}));
  std::uint64_t written = 0, asked = 0;
  const auto write = [&] {
    ++written;
    bench.command(1, written, register_model("m" + std::to_string(written)));
  };
  const auto ask = [&] { bench.query(2, ++asked, query::GetModel{"m1", std::nullopt}); };
  const auto answered = [&] { return bench.replies(2).size(); };
  const auto write_group = [&] { return bench.sync() && bench.anchor(); };

  write();  // the first group, in flight
  ask();
  EXPECT_EQ(answered(), 0u);
  write();  // gathers
  ask();
  write();  // gathers behind the read
  ASSERT_TRUE(write_group());
  EXPECT_EQ(answered(), 1u) << "what rests on the first group leaves with it";
  write();  // the third group gathers while the second is in flight
  ask();
  ASSERT_TRUE(write_group());
  EXPECT_EQ(answered(), 2u) << "the third group is none of the second read's";
  for (int n = 0; n < 10; ++n) write();
  ASSERT_TRUE(write_group());
  EXPECT_EQ(answered(), 3u);
  bench.settle();
  ask();
  EXPECT_EQ(answered(), 4u) << "at rest a read waits for nothing";
}

TEST(Engine, ARetryWaitsForTheFirstAndKeepsItsPlace) {
  EngineBench bench;
  bench.hello(1);
  bench.command(1, 1, register_model("a"));
  bench.disconnect(1);
  bench.hello(1);
  bench.command(1, 1, register_model("a"));
  bench.query(1, 2, query::ListModels{});
  EXPECT_EQ(bench.waiting_reads(), 0u) << "its records are not durable";
  bench.settle();
  EXPECT_EQ(bench.waiting_reads(), 1u);
  EXPECT_THAT(bench.replies(1), IsEmpty()) << "the query waits behind the retry";
  bench.run_reads();
  EXPECT_THAT(correlations(bench.replies(1)), ElementsAre(1, 2));
  EXPECT_EQ(result_of<result::Registered>(bench.replies(1)[0]).model_id, "a");
}

TEST(Engine, ReadsOfTheLogLeaveWhenTheyAreReady) {
  EngineBench bench;
  bench.hello(1);
  bench.query(1, 1, query::ReadLog{});
  bench.query(1, 2, query::VerifyLog{});
  bench.query(1, 3, query::VerifyLog{});
  bench.query(1, 4, query::ListModels{});
  EXPECT_THAT(correlations(bench.replies(1)), ElementsAre(3, 4));
  EXPECT_EQ(bench.replies(1)[0].status.code(), StatusCode::kResourceExhausted) << "one verification at a time";
  bench.run_reads();
  EXPECT_THAT(correlations(bench.replies(1)), ElementsAre(3, 4, 1, 2));
  EXPECT_THAT(result_of<result::LogRecords>(bench.replies(1)[2]).records, SizeIs(1));
  bench.query(1, 5, query::GetStatus{});
  EXPECT_EQ(result_of<result::Status>(bench.replies(1).back()).verified_to, 1u);
}

TEST(Engine, ASnapshotEndsWhatIsGatheredAndIsOneAtATime) {
  EngineBench bench;
  bench.hello(1);
  bench.command(1, 1, register_model("a"));  // is being written, and what follows waits for that
  bench.command(1, 2, register_model("b"));
  bench.query(1, 3, query::TakeSnapshot{});
  bench.query(1, 4, query::TakeSnapshot{});
  const std::string noted = service::encode_noted_digest(bench.state());
  bench.command(1, 5, register_model("c"));
  EXPECT_EQ(bench.waiting_reads(), 0u) << "it is of what is durable";
  bench.settle();
  EXPECT_EQ(bench.journal().noted_digest(3).value(), noted);
  EXPECT_EQ(bench.journal().verify()->chunks, 4u) << "one ends where the snapshot does";
  EXPECT_EQ(bench.waiting_reads(), 1u);
  EXPECT_EQ(bench.replies(1).at(2).correlation_id, 4u);
  EXPECT_EQ(bench.replies(1).at(2).status.code(), StatusCode::kResourceExhausted);
  bench.run_reads();
  EXPECT_EQ(bench.replies(1).back().correlation_id, 3u);
  EXPECT_EQ(bench.replies(1).back().status.code(), StatusCode::kUnimplemented) << "there is no place for it here";
  bench.query(1, 6, query::TakeSnapshot{});
  EXPECT_EQ(bench.waiting_reads(), 1u) << "with nothing gathered it is of the log's end";
  bench.engine().on_snapshot(3);
  bench.query(1, 7, query::GetStatus{});
  EXPECT_EQ(result_of<result::Status>(bench.replies(1).back()).snapshot_sequence, 3u);
}

TEST(Engine, AReadThatNobodyWaitsForIsDropped) {
  EngineBench bench;
  bench.hello(1);
  bench.query(1, 1, query::ReadLog{});
  bench.disconnect(1);
  bench.run_reads();
  EXPECT_EQ(bench.engine().connection_count(), 0u);
}

TEST(Engine, StatusShowsTheDurableState) {
  EngineBench bench;
  bench.hello(1);
  bench.command(1, 1, register_model("a"));
  bench.settle();
  const Digest durable = bench.state().digest();
  bench.command(1, 2, register_model("b"));
  bench.query(1, 3, query::GetStatus{});
  bench.settle();
  auto status = result_of<result::Status>(bench.replies(1).at(2));
  EXPECT_EQ(status.sequence, 2u);
  EXPECT_EQ(status.anchored_sequence, 2u);
  EXPECT_EQ(status.state_digest, format_digest(durable));
  EXPECT_EQ(status.models, 1u);
  bench.query(1, 4, query::GetStatus{});
  status = result_of<result::Status>(bench.replies(1).at(3));
  EXPECT_EQ(status.sequence, 3u);
  EXPECT_EQ(status.root, bench.journal().durable_head().root);
  EXPECT_EQ(status.state_digest, format_digest(bench.state().digest()));
  EXPECT_EQ(status.log_id, kLogId);
  EXPECT_EQ(status.connections, 1u);
  EXPECT_EQ(status.sessions, 1u);
}

// ---- hostile peers

TEST(Engine, TakesBytesOneByOne) {
  EngineBench bench;
  bench.connect(1);
  std::string bytes = codec::encode_client_frame(session_hello()).value();
  for (std::uint64_t n = 1; n <= 3; ++n) {
    Request request;
    request.correlation_id = request.command_number = n;
    request.body = Command(register_model("m" + std::to_string(n)));
    bytes += codec::encode_client_frame(request).value();
  }
  for (const char byte : bytes) bench.send_bytes(1, {&byte, 1});
  bench.settle();
  EXPECT_THAT(correlations(bench.replies(1)), ElementsAre(1, 2, 3));
}

TEST(Engine, AMalformedFrameCostsOneReplyAndTheConnection) {
  std::string unknown_member = codec::encode_client_frame(session_hello()).value();
  std::string flipped = unknown_member;
  flipped[4] = static_cast<char>(0xff);  // the root offset
  const struct {
    const char* name;
    std::string bytes;
  } cases[] = {
      {"a length of 4 GiB", std::string("\xff\xff\xff\xff", 4)},
      {"a length over 1 MiB", std::string("\xfd\xff\x0f\x00", 4)},
      {"a length of nothing", std::string(4, '\0')},
      {"zeros", std::string("\x40\0\0\0", 4) + std::string(64, '\0')},
      {"noise", std::string("\x40\0\0\0", 4) + std::string(64, '\x7f')},
      {"a root outside of the frame", flipped},
      {"a frame of the other direction", codec::encode_server_frame(Welcome{}).value()},
      {"HTTP", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
  };
  for (const auto& [name, bytes] : cases) {
    SCOPED_TRACE(name);
    EngineBench bench;
    bench.hello(1, session_hello(SessionId{9}));
    bench.hello(2);
    bench.send_bytes(2, bytes);
    ASSERT_THAT(bench.replies(2), SizeIs(1));
    EXPECT_EQ(bench.replies(2)[0].correlation_id, 0u);
    EXPECT_EQ(bench.replies(2)[0].status.code(), StatusCode::kInvalidArgument);
    EXPECT_FALSE(bench.peer(2).open);
    bench.command(1, 1, register_model("a"));
    bench.settle();
    EXPECT_THAT(bench.replies(1), SizeIs(1)) << "the neighbour goes on";
  }
}

TEST(Engine, ARequestThatDoesNotDecodeCostsThatRequestAlone) {
  EngineBench bench;
  bench.hello(1);
  Request request;
  request.correlation_id = request.command_number = 1;
  request.body = Command(register_model("a\xff"));
  bench.send(1, request);
  bench.command(1, 2, register_model("b"));
  bench.settle();
  ASSERT_THAT(correlations(bench.replies(1)), ElementsAre(1, 2));
  EXPECT_EQ(bench.replies(1)[0].status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(message_of(bench.replies(1)[0]), HasSubstr("not valid UTF-8"));
  EXPECT_TRUE(bench.replies(1)[1].status.ok());
}

TEST(Engine, EveryFlippedBitOfAFrameIsAnsweredOrCloses) {
  Request request;
  request.correlation_id = request.command_number = 1;
  request.body = Command(batch({register_model("a"), allocate("gpu0", 5)}));
  const std::string good = codec::encode_client_frame(request).value();
  for (std::size_t bit = 32; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    EngineBench bench;
    bench.hello(1);
    bench.send_bytes(1, bad);
    bench.settle();
    bench.run_reads();
    ASSERT_THAT(bench.replies(1), SizeIs(1)) << "bit " << bit;
    EXPECT_EQ(bench.replayed().digest(), bench.state().digest());
  }
}

TEST(Engine, AMapOfTooManyEntriesIsRefused) {
  EngineBench bench;
  bench.hello(1);
  registry::ModelMetadata model;
  model.model_id = "m";
  for (int i = 0; i < 20'000; ++i) model.tags["k" + std::to_string(i)] = "v";
  bench.command(1, 1, SingleCommand(registry::Command(registry::RegisterModel{model})));
  ASSERT_THAT(bench.replies(1), SizeIs(1));
  EXPECT_EQ(bench.replies(1)[0].status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(bench.state().sequence, 1u);
}

TEST(Engine, AHalfFrameLeftHangingClosesTheConnection) {
  protocol::Config config;
  config.half_frame_timeout_ms = 1'000;
  EngineBench bench(config);
  bench.hello(1);
  bench.send_bytes(1, std::string("\x40\0\0\0", 4));
  for (int i = 0; i < 9; ++i) {
    bench.tick(100);
    bench.send_bytes(1, std::string(1, 'x'));  // a trickle does not help
  }
  EXPECT_TRUE(bench.peer(1).open);
  bench.tick(100);
  EXPECT_FALSE(bench.peer(1).open);
  bench.hello(2);
  bench.tick(10'000);
  EXPECT_TRUE(bench.peer(2).open) << "silence between frames is fine";
}

TEST(Engine, APeerThatNeverSaysHelloIsClosed) {
  EngineBench bench;
  bench.connect(1);
  bench.tick(9'999);
  EXPECT_TRUE(bench.peer(1).open);
  bench.tick(100);
  EXPECT_FALSE(bench.peer(1).open);
}

TEST(Engine, AnIdlePeerIsClosedIfTheOperatorWantsThat) {
  protocol::Config config;
  config.idle_timeout_ms = 5'000;
  EngineBench bench(config);
  bench.hello(1);
  bench.tick(4'900);
  bench.query(1, 1, query::ListModels{});
  bench.tick(4'900);
  EXPECT_TRUE(bench.peer(1).open);
  bench.tick(200);
  EXPECT_FALSE(bench.peer(1).open);
}

TEST(Engine, ASlowReaderIsNotReadFromAndThenClosed) {
  protocol::Config config;
  config.max_output_bytes = 10'000;
  config.slow_reader_timeout_ms = 1'000;
  EngineBench bench(config);
  bench.hello(1);
  bench.peer(1).takes = false;
  for (std::uint64_t n = 1; n <= 1'000; ++n) bench.query(1, n, query::ListModels{});
  EXPECT_FALSE(bench.peer(1).read_from);
  const std::size_t answered = bench.replies(1).size();
  EXPECT_LT(answered, 500u) << "what waits for the peer is bounded";
  bench.take(1);
  EXPECT_TRUE(bench.more_work()) << "it goes on where it stopped";
  bench.turn();
  EXPECT_GT(bench.replies(1).size(), answered);
  bench.tick(900);
  EXPECT_TRUE(bench.peer(1).open);
  bench.tick(200);
  EXPECT_FALSE(bench.peer(1).open);
}

TEST(Engine, TooManyRequestsInFlightWaitForTheirTurn) {
  protocol::Config config;
  config.max_requests_in_flight = 4;
  EngineBench bench(config);
  bench.hello(1);
  for (std::uint64_t n = 1; n <= 10; ++n) bench.command(1, n, register_model("m" + std::to_string(n)));
  EXPECT_EQ(bench.state().sequence, 5u);
  EXPECT_FALSE(bench.peer(1).read_from);
  for (int i = 0; i < 10; ++i) {
    bench.settle();
    bench.turn();
  }
  EXPECT_EQ(bench.state().sequence, 11u);
  EXPECT_TRUE(bench.peer(1).read_from);
  EXPECT_THAT(correlations(bench.replies(1)), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
}

TEST(Engine, RequestsThatArriveTogetherAreTakenInTheirOrderUntilOneClosesTheConnection) {
  protocol::Config config;
  config.max_requests_in_flight = 3;
  EngineBench bench(config);
  bench.hello(1);
  const auto frame = [](std::uint64_t number, const std::string& model_id) {
    Request request;
    request.correlation_id = request.command_number = number;
    request.body = Command(register_model(model_id));
    if (number % 5 == 0) request.reason = std::string(2'000, 'r');  // larger than what is read ahead
    return codec::encode_client_frame(request).value();
  };
  std::string together;
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t n = 1; n <= 20; ++n) {
    together += frame(n, n % 7 == 0 ? "m\xff" : "m" + std::to_string(n));
    numbers.push_back(n);
  }
  together += frame(0, "closes") + frame(21, "behind");
  bench.send_bytes(1, together);
  EXPECT_EQ(bench.state().sequence, 4u);
  for (int i = 0; i < 20; ++i) {
    bench.settle();
    bench.turn();
  }
  numbers.push_back(0);
  EXPECT_EQ(correlations(bench.replies(1)), numbers);
  EXPECT_FALSE(bench.peer(1).open);
  EXPECT_EQ(bench.state().registry.model_count(), 18u);
  for (const char* model_id : {"closes", "behind"}) EXPECT_FALSE(bench.state().registry.latest(model_id)) << model_id;
}

TEST(Engine, RequestsThatWereReadAndNotTakenAreAnsweredWhenTheDiskFails) {
  protocol::Config config;
  config.max_requests_in_flight = 3;
  EngineBench bench(config);
  bench.hello(1);
  std::string together;
  for (std::uint64_t n = 1; n <= 6; ++n) {
    together += frame_of(n, Command(register_model("m" + std::to_string(n))));
  }
  bench.send_bytes(1, together);
  EXPECT_EQ(bench.state().sequence, 4u);
  bench.fail_disk();
  for (int i = 0; i < 10; ++i) bench.turn();
  ASSERT_THAT(correlations(bench.replies(1)), ElementsAre(1, 2, 3, 4, 5, 6));
  for (const Reply& reply : bench.replies(1)) EXPECT_EQ(reply.status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(bench.state().sequence, 4u);
}

TEST(Engine, NobodyIsReadFromWhileTooMuchWaitsForTheDisk) {
  protocol::Config config;
  config.max_gathered_bytes = 2'000;
  EngineBench bench(config);
  bench.hello(1);
  bench.hello(2, session_hello(SessionId{2}));
  for (std::uint64_t n = 1; n <= 100; ++n) bench.command(1, n, register_model("m" + std::to_string(n)));
  bench.query(2, 1, query::ListModels{});
  EXPECT_LT(bench.state().sequence, 50u);
  EXPECT_FALSE(bench.peer(1).read_from);
  for (int i = 0; i < 100; ++i) {
    bench.settle();
    bench.turn();
  }
  EXPECT_EQ(bench.state().sequence, 101u);
  EXPECT_THAT(bench.replies(1), SizeIs(100));
  EXPECT_THAT(bench.replies(2), SizeIs(1));
}

TEST(Engine, GivesTheJournalWhatIsEnoughWhileItWrites) {
  for (const std::size_t enough : {std::size_t{0}, std::size_t{1'000}}) {
    protocol::Config config;
    config.early_group_bytes = enough;
    EngineBench bench(config);
    bench.hello(1);
    bench.command(1, 1, register_model("m1"));
    ASSERT_TRUE(bench.journal().sync_waits());
    protocol::Engine& engine = bench.engine();
    std::uint64_t number = 1;
    std::size_t groups = 0;
    while (groups == 0 && number < 100) {
      ++number;
      arrive(engine, number);
      groups = engine.take_effects().groups.size();
    }
    EXPECT_EQ(groups, 1u) << "in one piece";
    EXPECT_EQ(number == 2, enough == 0);
    arrive(engine, number + 1, Command(register_model("last")));
    EXPECT_EQ(engine.take_effects().groups.size(), enough == 0 ? 1u : 0u);
    engine.on_synced(enough == 0 ? 3 : 2);
    EXPECT_EQ(engine.take_effects().groups.size(), enough == 0 ? 0u : 1u) << "nothing is being written any more";
  }
}

TEST(Engine, TakesWhatArrivedTogetherInItsOrder) {
  EngineBench bench;
  constexpr ConnectionId kPeers = 20;  // more than are decoded together
  for (ConnectionId id = 1; id <= kPeers; ++id)
    bench.hello(id, session_hello(SessionId{static_cast<std::uint8_t>(id)}));
  bench.settle();
  protocol::Engine& engine = bench.engine();
  const auto frames = [](ConnectionId id) {
    std::string all = frame_of(1, Command(register_model("m" + std::to_string(id))));
    if (id % 3 == 0) all += frame_of(2, Command(register_model("m" + std::to_string(id) + "b")));
    if (id % 5 == 0) all = "\xff\xff\xff\xff" + all;  // no frame
    if (id % 7 == 0) all.resize(all.size() - 1);
    return all;
  };
  for (ConnectionId id = 1; id <= kPeers; ++id) {
    const std::string all = frames(id);
    engine.on_bytes(id, std::as_bytes(std::span(all)));
  }
  const protocol::Effects effects = engine.take_effects();
  ASSERT_THAT(effects.groups, SizeIs(1));
  std::size_t last = 0;
  for (ConnectionId id = 1; id <= kPeers; ++id) {
    const bool is_whole = id % 5 != 0 && (id % 7 != 0 || id % 3 == 0);
    EXPECT_EQ(bench.state().registry.latest("m" + std::to_string(id)).has_value(), is_whole) << id;
    if (is_whole) {
      const std::size_t at = effects.groups[0].bytes.find("m" + std::to_string(id) + std::string(1, '\0'));
      ASSERT_NE(at, std::string::npos) << id;
      EXPECT_GT(at, last) << "in the order of their arrival";
      last = at;
    }
    const bool has_second = id % 3 == 0 && id % 5 != 0 && id % 7 != 0;
    EXPECT_EQ(bench.state().registry.latest("m" + std::to_string(id) + "b").has_value(), has_second) << id;
  }
}

TEST(Engine, WhatAPeerAskedBeforeItLeftGoesOn) {
  EngineBench bench;
  bench.hello(1);
  arrive(bench.engine(), 1, Command(register_model("m")));
  EXPECT_FALSE(bench.state().registry.latest("m")) << "not before the others of its turn have arrived";
  bench.engine().on_disconnect(1);
  EXPECT_TRUE(bench.state().registry.latest("m"));
}

TEST(Engine, KeepsALittleForInputThatIsReady) {
  EngineBench bench;
  bench.hello(1);
  bench.settle();
  protocol::Engine& engine = bench.engine();
  std::uint64_t number = 0;
  arrive(engine, ++number);
  protocol::Effects effects = engine.take_effects(true);
  EXPECT_THAT(effects.groups, IsEmpty());
  EXPECT_TRUE(effects.gathers);
  arrive(engine, ++number);
  effects = engine.take_effects(false);
  ASSERT_THAT(effects.groups, SizeIs(1));
  EXPECT_EQ(effects.groups[0].count(), 2u);
  EXPECT_FALSE(effects.gathers);

  arrive(engine, ++number);
  effects = engine.take_effects(true);
  EXPECT_THAT(effects.groups, IsEmpty()) << "another is being written";
  EXPECT_FALSE(effects.gathers) << "the end of that begins a turn";
  engine.on_synced(1);
  EXPECT_TRUE(engine.take_effects(true).gathers);
  EXPECT_THAT(engine.take_effects().groups, SizeIs(1));
  engine.on_synced(1);
  EXPECT_FALSE(engine.take_effects(true).gathers) << "nothing was decided";
}

TEST(Engine, WhatIsKeptGoesOutWithTheEndOrFailsWithTheDisk) {
  for (const bool fails : {false, true}) {
    EngineBench bench;
    bench.hello(1);
    bench.settle();
    protocol::Engine& engine = bench.engine();
    arrive(engine, 1);
    ASSERT_TRUE(engine.take_effects(true).gathers);
    if (fails) {
      engine.on_journal_failed(absl::UnavailableError("the disk failed"));
      const protocol::Effects effects = engine.take_effects();
      EXPECT_THAT(effects.groups, IsEmpty());
      EXPECT_THAT(effects.sends, SizeIs(1)) << "that the outcome is unknown";
    } else {
      engine.begin_shutdown();
      EXPECT_EQ(engine.take_effects(true).exit_code, std::nullopt);
      const protocol::Effects effects = engine.take_effects();
      ASSERT_FALSE(effects.groups.empty());
      EXPECT_EQ(effects.groups[0].count(), 1u);
    }
  }
}

TEST(Engine, DoesNotKeepItForeverNorMuch) {
  EngineBench bench;
  bench.hello(1);
  bench.settle();
  protocol::Engine& engine = bench.engine();
  std::uint64_t number = 0;
  service::Now now{1'700'000'000'000, 10'000'000};
  engine.on_tick(now);
  std::size_t kept = 0;
  arrive(engine, ++number);
  while (engine.take_effects(true).gathers && kept < 10) {
    ++kept;
    arrive(engine, ++number);
    now.boot_ms += 1;
    engine.on_tick(now);
  }
  EXPECT_EQ(kept, 2u) << "ms";
  engine.on_synced(1);
  arrive(engine, ++number);
  EXPECT_TRUE(engine.take_effects(true).gathers) << "from when it is kept";

  std::size_t groups = 0;
  while (groups == 0 && number < 1'000) {
    arrive(engine, ++number);
    groups = engine.take_effects(true).groups.size();
  }
  EXPECT_EQ(groups, 1u) << "it is not little any more";
  EXPECT_GT(number, 100u);
}

TEST(Engine, ACleanStopWritesWhatWasKeptBack) {
  for (const bool has_command : {true, false}) {
    EngineBench bench;
    bench.hello(1);
    bench.command(1, 1, register_model("a"));
    if (has_command) bench.command(1, 2, register_model("b"));
    bench.engine().begin_shutdown();
    bench.carry();
    EXPECT_EQ(bench.exit_code(), std::nullopt);
    bench.settle();
    EXPECT_EQ(bench.exit_code(), 0);
    EXPECT_THAT(bench.replies(1), SizeIs(has_command ? 2 : 1));
    EXPECT_EQ(bench.journal().noted_digest(has_command ? 3 : 2).value(), service::encode_noted_digest(bench.state()));
    EXPECT_EQ(bench.replayed().digest(), bench.state().digest());
  }
}

TEST(Engine, WhatWaitsBehindANotedDigestStillCounts) {
  protocol::Config config;
  config.early_group_bytes = 0;
  EngineBench bench(config);
  bench.hello(1);
  protocol::Engine& engine = bench.engine();
  const auto give = [&](std::uint64_t number, decltype(Request::body) body) {
    arrive(engine, number, std::move(body));
    return engine.take_effects().groups.size();
  };
  ASSERT_EQ(give(1, Command(register_model("a"))), 1u);
  ASSERT_EQ(give(2, Command(register_model("b"))), 1u);
  ASSERT_EQ(give(3, Query(query::TakeSnapshot{})), 1u);  // a digest alone: it ends what the journal takes
  ASSERT_EQ(give(4, Command(register_model("c"))), 1u);
  const std::size_t waiting = engine.gathered_bytes();
  engine.on_synced(1);
  EXPECT_GT(engine.gathered_bytes(), 0u);
  EXPECT_LT(engine.gathered_bytes(), waiting);
  engine.on_synced(2);
  EXPECT_EQ(engine.gathered_bytes(), 0u);
}

TEST(Engine, GroupsThatTheJournalBeganTogetherMakeRoomTogether) {
  protocol::Config config;
  config.max_gathered_bytes = 2'000;
  config.early_group_bytes = 0;
  EngineBench bench(config);
  bench.hello(1);
  protocol::Engine& engine = bench.engine();
  std::size_t groups = 0;
  bool read_from = true;
  for (std::uint64_t n = 1; n <= 100 && read_from; ++n) {
    arrive(engine, n);
    const protocol::Effects effects = engine.take_effects();
    groups += effects.groups.size();
    read_from = effects.pauses.empty();
  }
  ASSERT_FALSE(read_from);
  ASSERT_GT(groups, 2u);
  engine.on_synced(groups);
  EXPECT_TRUE(engine.take_effects().more_work) << "what arrived already is taken first";
}

TEST(Engine, AGreedyPeerLeavesTheOthersTheirTurn) {
  protocol::Config config;
  config.frames_per_turn = 8;
  EngineBench bench(config);
  bench.hello(1);
  bench.hello(2, session_hello(SessionId{2}));
  std::string many;
  for (std::uint64_t n = 1; n <= 100; ++n) {
    Request request;
    request.correlation_id = n;
    request.body = Query(query::ListModels{});
    many += codec::encode_client_frame(request).value();
  }
  bench.send_bytes(1, many);
  EXPECT_THAT(bench.replies(1), SizeIs(8));
  EXPECT_TRUE(bench.more_work());
  bench.query(2, 1, query::ListModels{});
  EXPECT_THAT(bench.replies(2), SizeIs(1));
  while (bench.more_work()) bench.turn();
  EXPECT_THAT(bench.replies(1), SizeIs(100));
}

TEST(Engine, MoreConnectionsThanAllowedAreClosedAtOnce) {
  protocol::Config config;
  config.max_connections = 1;
  EngineBench bench(config);
  bench.hello(1);
  bench.connect(2);
  EXPECT_TRUE(bench.peer(1).open);
  EXPECT_FALSE(bench.peer(2).open);
  bench.disconnect(1);
  bench.connect(3);
  EXPECT_TRUE(bench.peer(3).open);
}

TEST(Engine, CorrelationIdZeroIsTheConnectionsOwn) {
  EngineBench bench;
  bench.hello(1);
  bench.query(1, 0, query::ListModels{});
  EXPECT_EQ(bench.replies(1).at(0).status.code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(bench.peer(1).open);
}

// ---- rate limits

protocol::Config three_a_second() {
  protocol::Config config;
  config.rate_limit_requests = 3;
  config.rate_limit_window_ms = 1'000;
  return config;
}

TEST(EngineRateLimit, RefusesWhatIsOverItAndSaysWhenToAskAgain) {
  EngineBench bench(three_a_second());
  bench.hello(1);
  bench.query(1, 1, query::ListModels{});
  bench.tick(300);
  bench.command(1, 2, register_model("a"));
  bench.query(1, 3, query::ReadLog{});
  bench.command(1, 4, register_model("b"));
  bench.settle();
  bench.run_reads();
  const Sequence sequence = bench.state().sequence;
  ASSERT_THAT(bench.replies(1), SizeIs(4));
  for (const Reply& reply : bench.replies(1)) {
    EXPECT_EQ(reply.status.code(), reply.correlation_id == 4 ? StatusCode::kResourceExhausted : StatusCode::kOk);
    if (reply.correlation_id != 4) continue;
    EXPECT_EQ(message_of(reply), "actor \"ann\": over 3 requests in 1000 ms: nothing was done, ask again in 700 ms");
  }
  bench.tick(699);
  bench.command(1, 4, register_model("b"));
  EXPECT_EQ(bench.state().sequence, sequence);
  bench.tick(1);
  bench.command(1, 4, register_model("b"));
  EXPECT_EQ(bench.state().sequence, sequence + 1) << "the refused number is as good as new";
  EXPECT_TRUE(bench.peer(1).open);
}

TEST(EngineRateLimit, IsOfAnActorOverAllItsConnections) {
  EngineBench bench(three_a_second());
  Hello bob = session_hello(SessionId{3});
  bob.actor = "bob";
  bench.hello(1, session_hello(SessionId{1}));
  bench.hello(2, session_hello(SessionId{2}));
  bench.hello(3, bob);
  bench.query(1, 1, query::ListModels{});
  bench.query(1, 2, query::ListModels{});
  bench.query(2, 1, query::ListModels{});
  bench.query(2, 2, query::ListModels{});
  bench.query(3, 1, query::ListModels{});
  EXPECT_EQ(bench.replies(2).at(1).status.code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(bench.replies(3).at(0).status.ok()) << "another actor";
  bench.disconnect(1);
  bench.disconnect(2);
  bench.hello(4, session_hello(SessionId{1}));
  bench.query(4, 1, query::ListModels{});
  EXPECT_EQ(bench.replies(4).at(0).status.code(), StatusCode::kResourceExhausted) << "connecting again does not help";
  bench.disconnect(4);
  bench.tick(1'000);
  bench.hello(5, session_hello(SessionId{1}));
  bench.query(5, 1, query::ListModels{});
  EXPECT_TRUE(bench.replies(5).at(0).status.ok());
}

TEST(EngineRateLimit, ARetryOfWhatIsInTheLogIsAnswered) {
  EngineBench bench(three_a_second());
  bench.hello(1);
  bench.command(1, 1, register_model("a"));
  bench.settle();
  bench.query(1, 2, query::ListModels{});
  bench.query(1, 3, query::ListModels{});
  bench.disconnect(1);
  bench.hello(1);
  bench.command(1, 1, register_model("a"));
  bench.command(1, 2, register_model("b"));
  bench.run_reads();
  ASSERT_THAT(correlations(bench.replies(1)), ElementsAre(1, 2));
  EXPECT_EQ(result_of<result::Registered>(bench.replies(1)[0]).model_id, "a");
  EXPECT_EQ(bench.replies(1)[1].status.code(), StatusCode::kResourceExhausted);
}

// ---- the end

TEST(Engine, WhenTheDiskFailsEveryOpenAndLaterCallIsUnavailable) {
  EngineBench bench;
  bench.hello(1);
  bench.hello(2, session_hello(SessionId{2}));
  bench.peer(2).takes = false;
  bench.query(2, 1, query::ListModels{});    // answered from what is durable
  bench.command(1, 1, register_model("a"));  // in flight
  bench.command(1, 2, register_model("b"));  // gathering
  bench.query(1, 3, query::ListModels{});    // rests on it
  bench.query(1, 4, query::ReadLog{});       // waits for it
  bench.fail_disk();
  const auto replies = bench.replies(1);
  EXPECT_THAT(correlations(replies), testing::UnorderedElementsAre(1, 2, 3, 4));
  for (const Reply& reply : replies) {
    EXPECT_EQ(reply.status.code(), StatusCode::kUnavailable);
    EXPECT_THAT(message_of(reply), HasSubstr("retry with the same number"));
    EXPECT_EQ(reply.sequence, 1u) << "nothing that is not durable is told";
  }
  EXPECT_TRUE(bench.replies(2).at(0).status.ok());
  EXPECT_EQ(bench.exit_code(), std::nullopt) << "one peer has not taken its answers";
  bench.command(1, 5, register_model("c"));
  EXPECT_EQ(bench.replies(1).back().status.code(), StatusCode::kUnavailable);
  bench.query(1, 6, query::ListModels{});
  EXPECT_EQ(bench.replies(1).back().status.code(), StatusCode::kUnavailable);
  bench.tick(1'000);
  EXPECT_EQ(bench.exit_code(), 3);
}

TEST(Engine, AfterAFailureARetryFindsWhatTheDiskKept) {
  for (const bool kept : {false, true}) {
    SCOPED_TRACE(kept);
    EngineBench bench;
    bench.hello(1);
    bench.command(1, 1, register_model("a"));
    bench.crash(kept);
    Hello again = session_hello();
    again.opened_at = 1;
    again.seen_sequence = 1;
    again.seen_incarnation = kIncarnation;
    bench.hello(1, again);
    bench.command(1, 1, register_model("a"));
    bench.settle();
    bench.run_reads();
    ASSERT_THAT(bench.replies(1), SizeIs(1));
    EXPECT_EQ(bench.replies(1)[0].sequence, 2u);
    EXPECT_EQ(bench.state().sequence, 2u);
  }
}

TEST(Engine, ShutdownAnswersWhatIsInFlightAndThenEnds) {
  EngineBench bench;
  bench.hello(1);
  bench.hello(2, session_hello(SessionId{2}));
  bench.command(1, 1, register_model("a"));
  bench.command(1, 2, register_model("b"));
  bench.engine().begin_shutdown();
  bench.carry();
  EXPECT_FALSE(bench.peer(2).open) << "it waits for nothing";
  bench.command(1, 3, register_model("c"));
  bench.connect(3);
  EXPECT_FALSE(bench.peer(3).open);
  EXPECT_EQ(bench.exit_code(), std::nullopt);
  bench.settle();
  EXPECT_THAT(correlations(bench.replies(1)), ElementsAre(1, 2)) << "3 came too late, and is retried elsewhere";
  EXPECT_FALSE(bench.peer(1).open);
  EXPECT_EQ(bench.exit_code(), 0);
  EXPECT_EQ(bench.journal().durable_head().sequence, 3u);
  const auto noted = bench.journal().noted_digest(3);
  ASSERT_TRUE(noted.ok() && *noted);
  EXPECT_EQ(*service::decode_noted_digest(**noted), service::noted_digest(bench.state()));
}

TEST(Engine, ShutdownAtRestNotesTheDigestBeforeItEnds) {
  EngineBench bench;
  bench.hello(1);
  bench.command(1, 1, register_model("a"));
  bench.settle();
  const Sequence last = bench.state().sequence;
  ASSERT_EQ(*bench.journal().noted_digest(last), std::nullopt);
  bench.engine().begin_shutdown();
  bench.carry();
  EXPECT_EQ(bench.exit_code(), std::nullopt) << "the disk has it not yet";
  bench.settle();
  EXPECT_EQ(bench.exit_code(), 0);
  const auto noted = bench.journal().noted_digest(last);
  ASSERT_TRUE(noted.ok() && *noted);
  EXPECT_EQ(*service::decode_noted_digest(**noted), service::noted_digest(bench.state()));
}

TEST(Engine, ShutdownDoesNotWaitForASlowReader) {
  EngineBench bench;
  bench.hello(1);
  bench.peer(1).takes = false;
  bench.command(1, 1, register_model("a"));
  bench.engine().begin_shutdown();
  bench.settle();
  EXPECT_EQ(bench.exit_code(), std::nullopt);
  bench.tick(5'000);
  EXPECT_EQ(bench.exit_code(), 0);
}

}  // namespace
}  // namespace tensorforge::test
