// page_bytes() of a list's elements is what the frame takes, or more.
#include <gtest/gtest.h>

#include "codec/reply.h"
#include "codec/request.h"
#include "tests/codec/random_values.h"

namespace tensorforge {
namespace {

constexpr std::size_t kFrameBeyondElements = 256;

template <class Result, class Element>
void expect_bound(std::vector<Element> Result::*list) {
  for (std::uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomValues random(seed);
    Result result;
    std::size_t bound = 0;
    for (std::uint64_t n = random.below(200); n > 0; --n) {
      (result.*list).push_back(random.make<Element>());
      bound += codec::page_bytes((result.*list).back());
    }
    Reply reply;
    reply.result = result;
    const std::size_t frame = codec::encode_server_frame(reply).value().size();
    EXPECT_LE(frame, bound + kFrameBeyondElements);
    EXPECT_GE(3 * frame, bound);
  }
}

TEST(PageBytes, AreNeverUnderTheTruthAndSeldomFarOver) {
  expect_bound(&result::Models::models);
  expect_bound(&result::Versions::versions);
  expect_bound(&result::Pools::pools);
  expect_bound(&result::Blocks::blocks);
  expect_bound(&result::Checkpoints::checkpoints);
  expect_bound(&result::LogRecords::records);
}

TEST(PageBytes, OfTheLargestElementLeaveRoomInAFrame) {
  registry::ModelMetadata model;
  model.model_id = model.name = model.framework = model.checksum = std::string(255, 'x');
  model.input_shape = model.output_shape = std::vector<std::size_t>(32);
  for (int i = 0; i < 256; ++i) model.tags[std::to_string(1'000 + i)] = std::string(60, 'x');
  EXPECT_LT(codec::page_bytes(model), codec::kMaxFrameBytes / 2);
  const result::LogRecord record{std::string(codec::kMaxRecordBytes, 'x'), Salt{}, std::string(16 * 1024, 'x')};
  EXPECT_LT(codec::page_bytes(record), codec::kMaxFrameBytes / 2);
}

}  // namespace
}  // namespace tensorforge
