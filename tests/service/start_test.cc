// A start takes the state from what was replayed while the log was checked, where that is of the log that was opened.
#include "service/start.h"

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/service_fixture.h"

namespace tensorforge {
namespace {

using absl::StatusCode;
using test::register_model;

class StartTest : public test::ServiceTest {
 protected:
  StartTest() {
    for (int i = 0; i < 20; ++i) run(register_model("m" + std::to_string(i)));
    flush();
    records_ = journal_->read(1, 10'000, std::size_t{1} << 20U)->records;
    start_.attach(open_);
  }
  std::size_t count() const { return records_.size(); }

  /// What the check of the log has verified: `count` records from `first` on.
  bool verify(Sequence first, std::size_t count) {
    const std::vector<std::string_view> views(records_.begin(), records_.end());
    return open_.take_verified(first, std::span(views).subspan(static_cast<std::size_t>(first) - 1, count));
  }
  /// A directory whose log has the first `records` of the service's.
  static storage::OpenedDirectory directory_of(std::span<const std::string> records) {
    auto journal = std::make_unique<storage::MemoryJournal>(test::kLogId);
    journal->start({[](Sequence, std::size_t) {}, [](Sequence) {}, [](const absl::Status&) {}});
    storage::Group group;
    group.first = 1;
    group.incarnation = test::kIncarnation;
    for (const std::string& record : records) group.add({record});
    if (!group.empty()) {
      journal->submit(std::move(group));
      EXPECT_TRUE(journal->complete_sync() && journal->complete_anchor());
    }
    storage::OpenedDirectory directory;
    directory.journal = std::move(journal);
    return directory;
  }
  void expect_state_of(std::size_t records) {
    const storage::OpenedDirectory directory = directory_of(std::span(records_).first(records));
    const Result<service::State> state = start_.finish(directory);
    ASSERT_TRUE(state.ok()) << state.status();
    const Result<service::State> replayed = service::recover(*directory.journal);
    ASSERT_TRUE(replayed.ok()) << replayed.status();
    EXPECT_EQ(state->sequence, records);
    EXPECT_EQ(test::pages_of(*state), test::pages_of(*replayed));
  }

  std::vector<std::string> records_;
  storage::OpenOptions open_;
  service::Start start_;
};

TEST_F(StartTest, WhatNobodyVerifiedIsReplayed) { expect_state_of(count()); }

TEST_F(StartTest, WhatWasVerifiedIsNotReplayedAgain) {
  ASSERT_TRUE(verify(1, 5));
  ASSERT_TRUE(verify(6, count() - 5));
  // Another log of that length: whoever replayed it would not come to this state.
  const storage::OpenedDirectory directory = directory_of(std::vector<std::string>(count(), "no record"));
  const Result<service::State> state = start_.finish(directory);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(test::pages_of(*state), test::pages_of(this->state()));
}

TEST_F(StartTest, WhatLiesBehindIsReplayed) {
  ASSERT_TRUE(verify(1, 7));
  expect_state_of(count());
}

TEST_F(StartTest, ACheckThatBeginsAnewIsReplayedAnew) {
  ASSERT_TRUE(verify(1, 7));
  ASSERT_TRUE(verify(1, 3));
  ASSERT_TRUE(verify(4, 9));
  expect_state_of(count());
}

TEST_F(StartTest, WhatWasOfAnotherLogIsDropped) {
  ASSERT_TRUE(verify(1, count()));
  expect_state_of(1);
}

TEST_F(StartTest, AnEmptyLogHasNothingOfWhatWasDropped) {
  ASSERT_TRUE(verify(1, 1));
  expect_state_of(0);
}

TEST_F(StartTest, WhatVerifiesAndIsNoRecordIsSaid) {
  const std::vector<std::string_view> garbage{records_[0], "garbage"};
  open_.take_verified(1, garbage);
  const storage::OpenedDirectory directory = directory_of(std::span(records_).first(2));
  EXPECT_EQ(start_.finish(directory).status().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tensorforge
