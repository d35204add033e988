// What a service holds for its peers is bounded, whatever they do, and a quiet peer still gets through.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <new>
#include <span>
#include <string>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <malloc.h>

#include "protocol/engine.h"
#include "tests/support/engine_bench.h"

namespace {

std::atomic<std::size_t> allocated_bytes;

void* counted(void* memory) {
  if (memory == nullptr) std::abort();
  allocated_bytes += malloc_usable_size(memory);
  return memory;
}

void release(void* memory) {
  if (memory != nullptr) allocated_bytes -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

// Every allocation of this program is counted as the C library's allocator counts it.
void* operator new(std::size_t size) { return counted(std::malloc(size)); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }

namespace tensorforge::test {
namespace {

using testing::SizeIs;

constexpr std::size_t kMiB = std::size_t{1} << 20U;
constexpr ConnectionId kQuiet = 9'999;

SessionId session_of(ConnectionId id) {
  return {static_cast<std::uint8_t>(id), static_cast<std::uint8_t>(id >> 8U), 0x77};
}

/// An engine whose peers need not decode what they get, so that the test's own memory does not hide the service's.
class Flood {
 public:
  explicit Flood(const protocol::Config& config) : config_(config), journal_(kLogId) {
    journal_.start({[](Sequence, std::size_t) {}, [](Sequence) {}, [](const absl::Status&) {}});
    service::State state;
    journal_.submit(service::start_incarnation(state, IncarnationCause::FirstStart, journal_.durable_head().root,
                                               kIncarnation, now_.wall_ms));
    journal_.restart(true);
    engine_.emplace(config_, service::Config{}, protocol::Identity{}, *service::recover(journal_),
                    journal_.durable_head(), counting_bytes(), now_);
    journal_.start({[this](Sequence, std::size_t groups) { engine_->on_synced(groups); },
                    [this](Sequence) { engine_->on_durable(journal_.durable_head()); }, [](const absl::Status&) {}});
  }

  struct Peer {
    std::size_t untaken{}, got{};
    bool takes{true}, read_from{true}, open{true};
  };

  void hello(ConnectionId id) {
    peers_[id] = {};
    engine_->on_connect(id, "10.0.0.1:99");
    send(id, codec::encode_client_frame(session_hello(session_of(id))).value());
  }
  /// As a socket does: nothing comes from a peer that is not read from. False: it was not.
  bool send(ConnectionId id, std::string_view bytes) {
    Peer& peer = peers_.at(id);
    if (!peer.read_from || !peer.open) return false;
    engine_->on_bytes(id, std::as_bytes(std::span(bytes)));
    carry();
    return true;
  }
  void carry() {
    protocol::Effects effects = engine_->take_effects();
    for (const auto& [id, bytes] : effects.sends) {
      Peer& peer = peers_.at(id);
      peer.untaken += bytes.size();
      peer.got += bytes.size();
    }
    for (const ConnectionId id : effects.pauses) peers_.at(id).read_from = false;
    for (const ConnectionId id : effects.resumes) peers_.at(id).read_from = true;
    for (const ConnectionId id : effects.closes) peers_.at(id).open = false;
    for (storage::Group& group : effects.groups) journal_.submit(std::move(group));
    reads_waiting_ += effects.reads.size();
    more_work_ = effects.more_work;
    most_buffered_ = std::max(most_buffered_, engine_->buffered_bytes());
    most_gathered_ = std::max(most_gathered_, engine_->gathered_bytes());
    most_allocated_ = std::max(most_allocated_, allocated_bytes.load());
    for (auto& [id, peer] : peers_) {
      if (peer.open && peer.takes && peer.untaken > 0) engine_->on_sent(id, std::exchange(peer.untaken, 0));
    }
  }
  bool write_group() {
    const bool wrote = journal_.complete_sync();
    journal_.complete_anchor();
    carry();
    return wrote;
  }
  void work() {
    while (more_work_) {
      engine_->on_turn();
      carry();
    }
  }
  void tick(std::uint64_t ms) {
    now_.boot_ms += ms;
    engine_->on_tick(now_);
    carry();
  }
  void disconnect(ConnectionId id) {
    peers_.at(id).open = false;
    engine_->on_disconnect(id);
    carry();
  }

  protocol::Config config_;
  service::Now now_{kStart, 5'000'000};
  storage::MemoryJournal journal_;
  std::optional<protocol::Engine> engine_;
  std::map<ConnectionId, Peer> peers_;
  bool more_work_{};
  std::size_t reads_waiting_{}, most_buffered_{}, most_gathered_{}, most_allocated_{};
};

std::string registration(std::uint64_t number, const std::string& model_id, std::size_t tag_bytes,
                         std::uint64_t answered_below = 0) {
  registry::ModelMetadata model;
  model.model_id = model_id;
  if (tag_bytes > 0) model.tags["payload"] = std::string(tag_bytes, 'x');
  Request request;
  request.correlation_id = request.command_number = number;
  request.answered_below = answered_below;
  request.reason = std::string(1'000, 'y');
  request.body = Command(SingleCommand(registry::Command(registry::RegisterModel{model})));
  return codec::encode_client_frame(request).value();
}

std::string question(std::uint64_t correlation_id, Query query) {
  Request request;
  request.correlation_id = correlation_id;
  request.body = std::move(query);
  return codec::encode_client_frame(request).value();
}

TEST(Backpressure, AThousandPeersThatTakeNothingHoldABoundedAmount) {
  Flood flood({});
  flood.hello(kQuiet);
  for (std::uint64_t n = 1; n <= 100; ++n) {
    flood.send(kQuiet, registration(n, "m" + std::to_string(n), 10'000));
    flood.write_group();
  }
  const std::size_t before = allocated_bytes;
  const std::string page = question(1, query::ListModels{});
  for (ConnectionId id = 1; id <= 1'000; ++id) {
    flood.hello(id);
    flood.peers_[id].takes = false;
  }
  for (int round = 0; round < 5; ++round) {
    for (ConnectionId id = 1; id <= 1'000; ++id) flood.send(id, page);
    flood.work();
  }
  EXPECT_GT(flood.most_buffered_, flood.config_.max_buffered_bytes / 4) << "or this proves nothing";
  EXPECT_LT(flood.most_buffered_, flood.config_.max_buffered_bytes + kMiB);
  EXPECT_LT(flood.most_allocated_ - before, 128 * kMiB);
  const std::size_t got = flood.peers_[kQuiet].got;
  ASSERT_TRUE(flood.send(kQuiet, question(1'000, query::GetModel{"m1", std::nullopt})));
  EXPECT_GT(flood.peers_[kQuiet].got, got + 10'000) << "who asks for little is answered at once";
}

TEST(Backpressure, HalfFramesOfAThousandPeersHoldABoundedAmount) {
  Flood flood({});
  std::string half("\0\0\x0f\0", 4);  // promises 983,040 bytes
  half += std::string(983'000, 'x');
  for (ConnectionId id = 1; id <= 1'000; ++id) flood.hello(id);
  flood.hello(kQuiet);
  const std::size_t before = allocated_bytes;
  constexpr std::size_t kPiece = 16'384;
  for (std::size_t at = 0; at < half.size(); at += kPiece) {
    for (ConnectionId id = 1; id <= 1'000; ++id) flood.send(id, std::string_view(half).substr(at, kPiece));
  }
  EXPECT_GT(flood.most_buffered_, 8 * kMiB);
  EXPECT_LE(flood.most_buffered_, flood.config_.max_buffered_bytes / 2);
  EXPECT_LT(flood.most_allocated_ - before, 64 * kMiB);
  EXPECT_TRUE(flood.send(kQuiet, registration(1, "quiet", 10'000))) << "a small request needs no room";
  flood.write_group();
  EXPECT_EQ(flood.engine_->state().registry.model_count(), 1u);
  // Those that hang go after a while, and give their room to those that waited.
  flood.tick(30'000);
  std::size_t open = 0;
  for (ConnectionId id = 1; id <= 1'000; ++id) open += flood.peers_[id].open ? 1 : 0;
  EXPECT_GT(open, 900u);
  EXPECT_LT(open, 1'000u);
  EXPECT_GT(flood.engine_->buffered_bytes(), 8 * kMiB);
}

TEST(Backpressure, LargeFramesOfManyPeersAllArrive) {
  protocol::Config config;
  config.max_buffered_bytes = 4 * kMiB;
  Flood flood(config);
  std::map<ConnectionId, std::string> rest;
  for (ConnectionId id = 1; id <= 20; ++id) {
    flood.hello(id);
    Batch batch;
    for (int i = 0; i < 40; ++i) {
      registry::ModelMetadata model;
      model.model_id = "m" + std::to_string(id) + "-" + std::to_string(i);
      model.tags["payload"] = std::string(15'000, 'x');
      const SingleCommand command = registry::Command(registry::RegisterModel{model});
      batch.items.push_back({command, std::nullopt});
    }
    Request request;
    request.correlation_id = request.command_number = 1;
    request.body = Command(batch);
    rest[id] = codec::encode_client_frame(request).value();
  }
  for (int round = 0; round < 10'000 && !rest.empty(); ++round) {
    for (auto next = rest.begin(); next != rest.end();) {
      auto& [id, bytes] = *next;
      if (flood.send(id, std::string_view(bytes).substr(0, 16'384))) bytes.erase(0, 16'384);
      next = bytes.empty() ? rest.erase(next) : std::next(next);
    }
    flood.write_group();
    flood.work();
  }
  EXPECT_TRUE(rest.empty());
  EXPECT_EQ(flood.engine_->state().registry.model_count(), 800u);
  EXPECT_EQ(flood.engine_->buffered_bytes(), 0u);
}

TEST(Backpressure, AFullGroupKeepsEverybodysPlace) {
  protocol::Config config;
  config.max_gathered_bytes = 200'000;
  config.frames_per_turn = 4;
  Flood flood(config);
  constexpr ConnectionId kPeers = 100;
  std::map<ConnectionId, std::string> unsent;
  for (ConnectionId id = 1; id <= kPeers; ++id) {
    flood.hello(id);
    for (std::uint64_t n = 1; n <= 16; ++n) {
      unsent[id] += registration(n, "m" + std::to_string(id) + "-" + std::to_string(n), 1'000);
    }
  }
  const service::State& state = flood.engine_->state();
  for (int group = 0; state.registry.model_count() < kPeers * 16; ++group) {
    ASSERT_LT(group, 1'000) << "it does not go on";
    std::erase_if(unsent, [&](const auto& each) { return flood.send(each.first, each.second); });
    flood.work();
    flood.write_group();
    // By the time that the half is done, nobody waits for his first.
    if (state.registry.model_count() < kPeers * 16 / 2) continue;
    for (ConnectionId id = 1; id <= kPeers; ++id) {
      ASSERT_TRUE(state.registry.latest("m" + std::to_string(id) + "-1")) << id;
    }
  }
  EXPECT_GT(flood.most_gathered_, config.max_gathered_bytes / 2);
  EXPECT_LT(flood.most_gathered_, config.max_gathered_bytes + 10'000);
}

TEST(Backpressure, OfAFloodAndAQuietPeerBothGetIntoTheGroup) {
  protocol::Config config;
  config.max_gathered_bytes = 200'000;
  Flood flood(config);
  flood.hello(1);
  flood.hello(kQuiet);
  for (std::uint64_t n = 1; n <= 1'000; ++n) flood.send(1, registration(n, "m" + std::to_string(n), 1'000));
  EXPECT_FALSE(flood.peers_[1].read_from);
  EXPECT_TRUE(flood.peers_[kQuiet].read_from);
  ASSERT_TRUE(flood.send(kQuiet, registration(1, "quiet", 0)));
  EXPECT_TRUE(flood.engine_->state().registry.latest("quiet")) << "it does not wait for the next group";
}

TEST(Backpressure, WhatManyPeersSendAtOnceIsNotCut) {
  Flood flood({});
  constexpr ConnectionId kPeers = 80;
  constexpr std::uint64_t kEach = 5;
  for (ConnectionId id = 1; id <= kPeers; ++id) flood.hello(id);
  const registry::State& models = flood.engine_->state().registry;
  for (std::uint64_t round = 0; round < 10; ++round) {
    for (ConnectionId id = 1; id <= kPeers; ++id) {
      std::string all;
      for (std::uint64_t n = round * kEach + 1; n <= (round + 1) * kEach; ++n) {
        all += registration(n, fmt::format("m{}-{}", id, n), 0);
      }
      ASSERT_TRUE(flood.send(id, all));
    }
    flood.work();
    ASSERT_EQ(models.model_count(), (round + 1) * kPeers * kEach) << "and nothing is written yet";
    do flood.work();
    while (flood.write_group());
  }
  EXPECT_GT(flood.most_gathered_, protocol::Config{}.max_gathered_bytes / 2);
}

TEST(Backpressure, WhoComesLateHasAPartOfTheOtherHalf) {
  constexpr std::size_t kRecord = 2'000;  // at most, of those who come late
  protocol::Config config;
  config.max_gathered_bytes = 2'000'000;
  Flood flood(config);
  constexpr ConnectionId kPeers = 10;
  for (ConnectionId id = 1; id <= kPeers; ++id) flood.hello(id);
  for (std::uint64_t n = 1; n <= 1'000; ++n) flood.send(1, registration(n, "m" + std::to_string(n), 1'000));
  ASSERT_FALSE(flood.peers_[1].read_from) << "it has the first half";
  for (ConnectionId id = 2; id <= kPeers; ++id) {
    const std::size_t before = flood.engine_->gathered_bytes();
    for (std::uint64_t n = 1; n <= 100; ++n) flood.send(id, registration(n, fmt::format("m{}-{}", id, n), 0));
    // Each may go over its part by a record, which the last ones have less.
    EXPECT_GE(flood.engine_->gathered_bytes() - before, config.max_gathered_bytes / 2 / kPeers - kPeers * kRecord);
  }
}

TEST(Backpressure, TheFloodsOfManyPeersAreDoneInShortTurns) {
  protocol::Config config;
  config.max_frames_per_turn = 100;
  config.max_gathered_bytes = 64 * kMiB;
  Flood flood(config);
  constexpr ConnectionId kPeers = 50;
  constexpr std::uint64_t kEach = 64;
  for (ConnectionId id = 1; id <= kPeers; ++id) flood.hello(id);
  flood.hello(kQuiet);
  const registry::State& models = flood.engine_->state().registry;
  // All of it arrives in one turn of the event loop.
  for (ConnectionId id = 1; id <= kPeers; ++id) {
    std::string all;
    for (std::uint64_t n = 1; n <= kEach; ++n) all += registration(n, fmt::format("m{}-{}", id, n), 0);
    flood.engine_->on_bytes(id, std::as_bytes(std::span(all)));
  }
  flood.carry();
  for (ConnectionId id = 1; id <= kPeers; ++id) {
    ASSERT_TRUE(models.latest(fmt::format("m{}-1", id))) << "everybody is served at once, a little";
  }
  const std::size_t arrived = models.model_count();
  EXPECT_GE(arrived, config.max_frames_per_turn);
  EXPECT_LE(arrived, config.max_frames_per_turn + 4 * kPeers);
  ASSERT_TRUE(flood.send(kQuiet, registration(1, "quiet", 0)));
  EXPECT_TRUE(models.latest("quiet")) << "it does not wait for what the others still have";
  const std::size_t before = models.model_count();
  flood.engine_->on_turn();
  EXPECT_GE(models.model_count(), before + config.max_frames_per_turn);
  EXPECT_LE(models.model_count(), before + config.max_frames_per_turn + 4);
  flood.carry();
  do flood.work();
  while (flood.write_group());
  EXPECT_EQ(models.model_count(), kPeers * kEach + 1);
}

/// Floods of peers, which have many changes to make, beside one peer that waits for each of its answers.
class BesideOne : public testing::Test {
 protected:
  static constexpr std::size_t kBesideOthers = std::size_t{16} * 1'024;

  void begin(ConnectionId floods, ConnectionId idle = 0) {
    for (ConnectionId id = 1; id <= floods + idle; ++id) flood_.hello(id);
    flood_.hello(kQuiet);
    floods_ = floods;
  }
  /// One group: every flood sends all that is taken of it. What all gathered.
  std::size_t gather() {
    flood_.most_gathered_ = 0;
    for (ConnectionId id = 1; id <= floods_; ++id) {
      std::uint64_t& last = sent_[id];
      const std::uint64_t first = last + 1;  // all before are answered
      while (flood_.send(id, change(id, last + 1, first))) ++last;
    }
    flood_.work();
    const std::size_t gathered = flood_.most_gathered_;
    while (flood_.write_group()) flood_.work();
    return gathered;
  }
  void write_group() {
    flood_.write_group();
    flood_.work();
  }
  std::size_t gather_until_settled() {  // the share of a connection is found over some groups
    for (int group = 0; group < 40; ++group) gather();
    return gather();
  }
  /// Nobody has asked alone for a while, and the floods are still known as such.
  void forget_the_quiet_one() {
    flood_.tick(600);
    gather();
    flood_.tick(600);
  }
  bool send_of_quiet_one(ConnectionId id = kQuiet) {
    const std::uint64_t number = ++sent_[id];
    return flood_.send(id, change(id, number, number));
  }
  /// From the fourth time in turn on it is known as what it is.
  void quiet_one_asks(ConnectionId id = kQuiet) {
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(send_of_quiet_one(id));
      while (flood_.write_group()) flood_.work();
    }
  }
  /// The next changes of a flood, all at once.
  void fill_with_changes(ConnectionId id, std::uint64_t count) {
    std::string all;
    for (std::uint64_t n = 1; n <= count; ++n) all += change(id, sent_[id] + n, 1);
    flood_.engine_->on_bytes(id, std::as_bytes(std::span(all)));
  }
  /// How many of them are done.
  std::uint64_t done_of(ConnectionId id) const {
    std::uint64_t done = 0;
    while (is_done(id, sent_.at(id) + done + 1)) ++done;
    return done;
  }
  static std::string change(ConnectionId id, std::uint64_t number, std::uint64_t answered_below,
                            std::size_t tag_bytes = 0) {
    return registration(number, fmt::format("m{}-{}", id, number), tag_bytes, answered_below);
  }
  bool is_done(ConnectionId id, std::uint64_t number) const {
    return flood_.engine_->state().registry.latest(fmt::format("m{}-{}", id, number)).has_value();
  }

  Flood flood_{{}};
  ConnectionId floods_{};
  std::map<ConnectionId, std::uint64_t> sent_;
};

TEST_F(BesideOne, AFloodGathersLittle) {
  begin(1);
  forget_the_quiet_one();
  EXPECT_GT(gather_until_settled(), kBesideOthers);
  quiet_one_asks();
  EXPECT_LT(gather_until_settled(), kBesideOthers + 2'000) << "a record more";
  forget_the_quiet_one();
  EXPECT_GT(gather_until_settled(), kBesideOthers);
}

TEST_F(BesideOne, FloodsGatherMoreWhereTheDiskIsSlow) {
  begin(2);
  const auto gather_beside_one = [&] {
    forget_the_quiet_one();
    quiet_one_asks();
    return gather_until_settled();
  };
  const std::size_t usual = gather_beside_one();
  EXPECT_LT(usual, 2 * kBesideOthers);
  for (int write = 0; write < 40; ++write) flood_.engine_->on_group_commit(5'000);
  const std::size_t on_slow_disk = gather_beside_one();
  EXPECT_GT(on_slow_disk, 100'000u);
  EXPECT_LT(on_slow_disk, 200'000u);
  for (int write = 0; write < 40; ++write) flood_.engine_->on_group_commit(1'000'000);
  EXPECT_LT(gather_beside_one(), 300'000u) << "there is room for the quiet one whatever the disk does";
  for (int write = 0; write < 80; ++write) flood_.engine_->on_group_commit(200);
  EXPECT_LT(gather_beside_one(), 2 * kBesideOthers);
}

TEST_F(BesideOne, FloodsHaveShortTurns) {
  constexpr ConnectionId kFloods = 8;
  constexpr std::uint64_t kEach = 200, kMost = 64;
  begin(kFloods);
  forget_the_quiet_one();
  const auto answered = [&] {
    std::size_t bytes = 0;
    for (ConnectionId id = 1; id <= kFloods; ++id) bytes += flood_.peers_[id].got;
    return bytes;
  };
  const std::string ask = question(1, query::GetModel{"unknown", std::nullopt});
  struct Answers {
    std::size_t on_arrival{}, in_turn{};
  };
  const auto answers = [&] {
    const std::size_t before = answered();
    EXPECT_TRUE(flood_.send(1, ask));
    const std::size_t one = answered() - before;
    for (ConnectionId id = 1; id <= kFloods; ++id) {
      std::string all;
      for (std::uint64_t n = 0; n < kEach; ++n) all += ask;
      flood_.engine_->on_bytes(id, std::as_bytes(std::span(all)));
    }
    flood_.carry();
    const std::size_t arrived = answered();
    flood_.engine_->on_turn();
    flood_.carry();
    const Answers counted{(arrived - before) / one - 1, (answered() - arrived) / one};
    flood_.work();
    return counted;
  };
  const Answers usual = answers();
  EXPECT_GT(usual.on_arrival, kMost + 4 * kFloods);
  EXPECT_GT(usual.in_turn, kMost + 4);
  quiet_one_asks();
  const Answers beside_one = answers();
  EXPECT_LE(beside_one.on_arrival, kMost + 4 * kFloods);
  EXPECT_GT(beside_one.in_turn, 0u);
  EXPECT_LE(beside_one.in_turn, kMost + 4);
}

TEST_F(BesideOne, ThatOneIsTakenWhateverTheFloodsHaveGathered) {
  begin(64);
  forget_the_quiet_one();
  quiet_one_asks();
  for (ConnectionId id = 1; id <= 64; ++id) {
    while (flood_.send(id, change(id, sent_[id] + 1, 1, 4'000))) ++sent_[id];
  }
  ASSERT_GT(flood_.engine_->gathered_bytes(), kBesideOthers);
  ASSERT_TRUE(send_of_quiet_one());
  EXPECT_TRUE(is_done(kQuiet, sent_[kQuiet]));
}

TEST_F(BesideOne, FloodsTakeTurnsAndGetEqualPartsWhoeverElseIsHeard) {
  constexpr ConnectionId kFloods = 16;
  constexpr std::uint64_t kEach = 400;
  constexpr std::size_t kRecord = 1'000;  // at least
  begin(kFloods, 1);
  const ConnectionId reader = kFloods + 1;
  const std::string two_questions =
      question(1, query::GetModel{"unknown", std::nullopt}) + question(2, query::GetModel{"unknown", std::nullopt});
  forget_the_quiet_one();
  quiet_one_asks();
  for (ConnectionId id = 1; id <= kFloods; ++id) fill_with_changes(id, kEach);
  flood_.carry();  // a few of each: none of them has waited so far
  const registry::State& models = flood_.engine_->state().registry;
  std::size_t answered = 0;
  for (int group = 0; group < 300; ++group) {
    if (std::exchange(answered, flood_.peers_[kQuiet].got) < flood_.peers_[kQuiet].got) {
      ASSERT_TRUE(send_of_quiet_one());
    }
    const std::size_t before = models.model_count();
    flood_.write_group();
    while (flood_.more_work_) {
      flood_.engine_->on_turn();
      flood_.engine_->on_bytes(reader, std::as_bytes(std::span(two_questions)));  // between the turn and its end
      flood_.carry();
    }
    // What one group may have, and the next that begins to gather when that is given away.
    ASSERT_LT(models.model_count() - before, 2 * (kBesideOthers / kRecord + 1));
  }
  std::vector<std::uint64_t> done;
  for (ConnectionId id = 1; id <= kFloods; ++id) done.push_back(done_of(id));
  const auto [least, most] = std::minmax_element(done.begin(), done.end());
  EXPECT_GT(*least, 50u);
  EXPECT_LT(*most, kEach);
  EXPECT_LE(*most - *least, 32u) << "two turns";
}

TEST_F(BesideOne, WhoHasNothingWaitingIsLetInAtOnce) {
  begin(64, 1);
  const ConnectionId light = 65;
  forget_the_quiet_one();
  quiet_one_asks();
  for (ConnectionId id = 1; id <= 64; ++id) fill_with_changes(id, 300);
  flood_.carry();
  const auto let_in = [&] {
    for (int group = 0; group < 2; ++group) write_group();
    EXPECT_GT(flood_.engine_->gathered_bytes(), kBesideOthers) << "it is not the light one's turn";
    std::string four;
    const std::uint64_t first = sent_[light] + 1;
    for (int n = 0; n < 4; ++n) four += change(light, ++sent_[light], first);
    EXPECT_TRUE(flood_.send(light, four));
    return is_done(light, first + 3);
  };
  for (int group = 0; group < 10; ++group) write_group();
  for (int round = 0; round < 10; ++round) ASSERT_TRUE(let_in()) << round;
  for (int group = 0; group < 2; ++group) write_group();
  fill_with_changes(light, 10);
  flood_.carry();
  EXPECT_EQ(done_of(light), 4u) << "the rest waits as that of the others";
  for (int group = 0; group < 500 && done_of(light) < 10; ++group) write_group();
  ASSERT_EQ(done_of(light), 10u);
  sent_[light] += 10;
  EXPECT_TRUE(let_in()) << "it has caught up";
}

TEST_F(BesideOne, FloodsWaitUntilItsGroupIsSynced) {
  begin(1);
  forget_the_quiet_one();
  quiet_one_asks();
  fill_with_changes(1, 100);
  flood_.carry();  // one group is written, and another gathers
  ASSERT_TRUE(send_of_quiet_one());
  flood_.work();
  const std::uint64_t before = done_of(1);
  flood_.write_group();  // of the flood; that of the quiet one is begun, with the rest of what had gathered
  flood_.work();
  EXPECT_EQ(done_of(1), before) << "with a group that gathers free";
  flood_.write_group();
  flood_.work();
  EXPECT_GT(done_of(1), before);
}

TEST_F(BesideOne, FloodsGoOnThoughItDoesNotAskAgain) {
  constexpr std::uint64_t kEach = 60;  // more than two groups take
  begin(1);
  forget_the_quiet_one();
  quiet_one_asks();
  fill_with_changes(1, kEach);
  flood_.carry();
  ASSERT_TRUE(send_of_quiet_one()) << "behind a part of them, and before the rest";
  EXPECT_LT(done_of(1), kEach);
  for (int group = 0; group < 20; ++group) write_group();
  EXPECT_EQ(done_of(1), kEach);
}

/// Some that ask alone, each again as soon as it has its answer, half of them while the others' changes are written.
struct Askers {
  const char* name;
  ConnectionId count;
  std::size_t tag_bytes;
  bool before_the_turn;  ///< they are heard before the floods have theirs
};
class BesideMany : public BesideOne, public testing::WithParamInterface<Askers> {};

TEST_P(BesideMany, FloodsHaveTheirTurnToo) {
  const ConnectionId last = 1 + GetParam().count;
  begin(1, GetParam().count);
  forget_the_quiet_one();
  for (ConnectionId id = 2; id <= last; ++id) quiet_one_asks(id);
  std::map<ConnectionId, std::size_t> got;
  const auto ask = [&](ConnectionId id) {
    got[id] = flood_.peers_[id].got;
    const std::uint64_t number = ++sent_[id];
    const std::string bytes = change(id, number, number, GetParam().tag_bytes);
    flood_.engine_->on_bytes(id, std::as_bytes(std::span(bytes)));
  };
  const auto ask_again = [&] {
    for (const auto& [id, bytes] : got) {
      if (flood_.peers_[id].got > bytes && flood_.peers_[id].read_from) ask(id);
    }
  };
  for (ConnectionId id = 2; id <= last; id += 2) ask(id);
  flood_.carry();
  fill_with_changes(1, 600);
  flood_.carry();
  for (ConnectionId id = 3; id <= last; id += 2) ask(id);
  flood_.carry();
  for (int group = 0; group < 300; ++group) {
    flood_.journal_.complete_sync();
    flood_.journal_.complete_anchor();
    flood_.carry();
    if (GetParam().before_the_turn) ask_again();
    if (flood_.more_work_) flood_.engine_->on_turn();
    flood_.carry();
    flood_.work();
    if (!GetParam().before_the_turn) ask_again();
    flood_.carry();
  }
  EXPECT_GT(done_of(1), 250u);
}
INSTANTIATE_TEST_SUITE_P(Askers, BesideMany,
                         testing::Values(Askers{"Two", 2, 0, false}, Askers{"TwoBeforeTheTurn", 2, 0, true},
                                         Askers{"ManyWithSmallChanges", 120, 0, false},
                                         Askers{"SomeWithLargeChanges", 8, 15'000, false},
                                         Askers{"SomeWithLargeChangesBeforeTheTurn", 8, 15'000, true}),
                         [](const auto& each) { return std::string(each.param.name); });

TEST_F(BesideOne, AFloodThatBeginsAgainIsNotTakenForOne) {
  begin(1);
  forget_the_quiet_one();
  flood_.tick(2'000);
  EXPECT_GT(gather_until_settled(), kBesideOthers);
}

TEST(Backpressure, PeersThatAllFloodGetEqualSharesOfTheDisk) {
  protocol::Config config;
  config.max_gathered_bytes = 400'000;
  Flood flood(config);
  constexpr ConnectionId kPeers = 20;
  struct Progress {
    std::uint64_t sent{}, done{}, done_before{};
    std::uint64_t got() const { return done - done_before; }
  };
  std::map<ConnectionId, Progress> peers;
  for (ConnectionId id = 1; id <= kPeers; ++id) {
    flood.hello(id);
    peers[id] = {};
  }
  const registry::State& models = flood.engine_->state().registry;
  for (int group = 0; group < 130; ++group) {
    for (auto& [id, peer] : peers) {
      if (group == 30) peer.done_before = peer.done;  // until then the shares are being found
      while (peer.sent < peer.done + 64 &&
             flood.send(id, registration(peer.sent + 1, fmt::format("m{}-{}", id, peer.sent + 1), 0))) {
        ++peer.sent;
      }
    }
    flood.work();
    flood.write_group();
    for (auto& [id, peer] : peers) {
      while (models.latest(fmt::format("m{}-{}", id, peer.done + 1))) ++peer.done;
    }
  }
  const auto [least, most] = std::minmax_element(
      peers.begin(), peers.end(), [](const auto& a, const auto& b) { return a.second.got() < b.second.got(); });
  EXPECT_GT(least->second.got(), 200u);
  EXPECT_LE(most->second.got() * 2, least->second.got() * 3)
      << "peer " << least->first << " got " << least->second.got() << " changes in, peer " << most->first << " "
      << most->second.got();
}

TEST(Backpressure, ReadsOfTheLogAreGivenOutAFewAtATime) {
  Flood flood({});
  for (ConnectionId id = 1; id <= 100; ++id) {
    flood.hello(id);
    for (std::uint64_t n = 1; n <= 64; ++n) flood.send(id, question(n, query::ReadLog{1, 10}));
  }
  EXPECT_EQ(flood.reads_waiting_, 4u);
}

TEST(Backpressure, AStreamNameThatNoStreamHasIsRefusedAndNotKept) {
  EngineBench bench;
  bench.hello(1);
  bench.query(1, 1, query::ReadHistory{"model/" + std::string(500'000, 'x'), {}});
  ASSERT_THAT(bench.replies(1), SizeIs(1));
  EXPECT_EQ(bench.replies(1)[0].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(bench.waiting_reads(), 0u);
}

TEST(Backpressure, WherePeersThatTakeNothingHoldEverythingTheWorstOfThemGoes) {
  protocol::Config config;
  config.max_buffered_bytes = 200'000;
  Flood flood(config);
  flood.hello(kQuiet);
  for (std::uint64_t n = 1; n <= 30; ++n) {
    ASSERT_TRUE(flood.send(kQuiet, registration(n, "m" + std::to_string(n), 10'000)));
    flood.write_group();
  }
  while (flood.write_group()) flood.work();
  for (ConnectionId id = 1; id <= 2; ++id) {
    flood.hello(id);
    flood.peers_[id].takes = false;
  }
  flood.send(1, question(1, query::GetModel{"m1", std::nullopt}));
  flood.send(2, question(1, query::ListModels{}));
  ASSERT_GT(flood.engine_->buffered_bytes(), config.max_buffered_bytes);
  const std::size_t got = flood.peers_[kQuiet].got;
  flood.send(kQuiet, question(100, query::GetModel{"m1", std::nullopt}));
  EXPECT_EQ(flood.peers_[kQuiet].got, got) << "nobody may add to it";
  flood.tick(1'000);
  flood.work();
  EXPECT_GT(flood.peers_[kQuiet].got, got);
  EXPECT_FALSE(flood.peers_[2].open);
  EXPECT_TRUE(flood.peers_[1].open);
  EXPECT_TRUE(flood.peers_[kQuiet].read_from);
}

TEST(Backpressure, RememberedAnswersOfBatchesAreBounded) {
  Flood flood({});
  flood.hello(1);
  flood.send(1, registration(1, "m", 0));
  flood.write_group();
  const std::size_t before = allocated_bytes;
  // Batches of which nothing comes, each with a hundred answers to be remembered.
  Batch batch;
  for (int i = 0; i < 100; ++i) {
    checkpoint::SetPolicy nothing_new;
    batch.items.push_back({SingleCommand(checkpoint::Command(nothing_new)), std::nullopt});
  }
  for (std::uint64_t n = 2; n <= 1'001; ++n) {
    Request request;
    request.correlation_id = request.command_number = n;
    request.body = Command(batch);
    flood.send(1, codec::encode_client_frame(request).value());
  }
  EXPECT_EQ(flood.engine_->state().sequence, 2u);
  EXPECT_LT(allocated_bytes - before, 24 * kMiB);
}

}  // namespace
}  // namespace tensorforge::test
