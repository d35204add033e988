#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "service/log_reader.h"
#include "service/recover.h"
#include "service/service.h"
#include "service/snapshot.h"
#include "storage/memory_journal.h"
#include "tests/support/commands.h"

namespace tensorforge::test {

inline constexpr std::uint32_t kIncarnation = 0x0a1b2c3d;
inline constexpr std::uint64_t kStart = 1'700'000'000'000;  ///< ms since the Unix epoch
inline constexpr SessionId kSession{0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
inline constexpr LogId kLogId{1, 2, 3};

/// 1, 2, 3, ... for every call: not random, and told apart.
inline service::RandomBytes counting_bytes() {
  return [next = std::uint8_t{0}](std::span<std::uint8_t> out) mutable { std::fill(out.begin(), out.end(), ++next); };
}

/// What a snapshot of `state` holds.
inline std::vector<std::string> pages_of(const service::State& state) {
  std::vector<std::string> pages;
  const absl::Status saved = service::save_state(state, [&](std::string_view page) {
    pages.emplace_back(page);
    return absl::OkStatus();
  });
  EXPECT_TRUE(saved.ok()) << saved;
  return pages;
}

/// A service over a memory journal whose disk writes when it is told to. Commands are the only way in.
class ServiceTest : public testing::Test {
 protected:
  ServiceTest() { start({}, {}); }

  /// Begins with an empty log.
  void start(const service::Config& config, const service::SessionLimits& limits) {
    config_ = config;
    limits_ = limits;
    journal_.emplace(kLogId);
    journal_->start({[](Sequence, std::size_t) {}, [](Sequence) {}, [](const absl::Status&) {}});
    service::State state;
    state.sessions = service::Sessions(limits);
    write(service::start_incarnation(state, IncarnationCause::FirstStart, journal_->durable_head().root, kIncarnation,
                                     now_.wall_ms));
    service_.emplace(config, std::move(state), counting_bytes(), now_);
  }
  /// Begins again from the log.
  void restart() {
    flush();
    auto state = service::recover(*journal_, {}, limits_);
    ASSERT_TRUE(state.ok()) << state.status();
    service_.emplace(config_, *std::move(state), counting_bytes(), now_);
  }

  struct Options {
    std::uint64_t number{};  ///< 0: the next one
    std::uint64_t answered_below{};
    std::optional<Sequence> if_sequence{};
    std::string reason{};
    SessionId session{kSession};
    std::optional<Sequence> opened_at{};
  };
  service::Service::Outcome execute(const Command& command, const Options& options) {
    Request request;
    request.command_number = options.number == 0 ? ++number_ : options.number;
    request.answered_below = options.answered_below;
    request.if_sequence = options.if_sequence;
    request.reason = options.reason;
    service::Caller caller;
    caller.actor = "ann";
    caller.peer_address = "10.0.0.1:99";
    caller.session = options.session;
    caller.opened_at = options.opened_at.value_or(1);
    return service_->execute(caller, request, command);
  }
  Reply run(const Command& command, const Options& options) {
    service::Service::Outcome outcome = execute(command, options);
    if (!outcome.in_log) return std::move(outcome.reply);
    flush();
    return service::run_read(*journal_, service::ReadAnswer{outcome.in_log->first, outcome.in_log->count},
                             config_.max_reply_bytes);
  }
  /// A command that no other one of the test's session waits for.
  Reply run(const Command& command) {
    Options options;
    options.answered_below = number_ + 1;
    return run(command, options);
  }
  absl::StatusCode code(const Command& command) { return run(command).status.code(); }
  Reply ask(const Query& query) { return service_->answer(query); }

  void tick(std::uint64_t ms) { step(ms, ms); }
  void step(std::uint64_t wall_ms, std::uint64_t boot_ms) {
    now_.wall_ms += wall_ms;
    now_.boot_ms += boot_ms;
    service_->on_tick(now_);
  }

  void write(storage::Group group) {
    const bool has_records = group.count() > 0;
    journal_->submit(std::move(group));
    ASSERT_TRUE(journal_->complete_sync());
    ASSERT_EQ(journal_->complete_anchor(), has_records);
  }
  void flush() {
    while (auto group = service_->take_group()) write(*std::move(group));
  }
  Record record(Sequence sequence) {
    flush();
    const auto read = journal_->read(sequence, 1, 1);
    EXPECT_TRUE(read.ok()) << read.status();
    const auto decoded = codec::decode_record(std::as_bytes(std::span(read->records.at(0))));
    EXPECT_TRUE(decoded.ok()) << decoded.status();
    return *decoded;
  }
  service::State replayed() {
    flush();
    auto state = service::recover(*journal_, {}, limits_);
    EXPECT_TRUE(state.ok()) << state.status();
    return *std::move(state);
  }
  const service::State& state() const { return service_->state(); }

  service::Config config_;
  service::SessionLimits limits_;
  service::Now now_{kStart, 5'000'000};
  std::optional<storage::MemoryJournal> journal_;
  std::optional<service::Service> service_;
  std::uint64_t number_{};
};

template <class T>
const T& result_of(const Reply& reply) {
  EXPECT_TRUE(reply.status.ok()) << reply.status;
  EXPECT_TRUE(std::holds_alternative<T>(reply.result)) << "result " << reply.result.index();
  return std::get<T>(reply.result);
}

}  // namespace tensorforge::test
