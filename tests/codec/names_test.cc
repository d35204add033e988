// Names and numbers that C++ and the schemas share, and the text forms of ids.
#include <gtest/gtest.h>

#include "codec/record.h"
#include "common_generated.h"
#include "event_generated.h"
#include "tests/codec/samples.h"

namespace tensorforge {
namespace {

template <class E, class Wire>
void expect_same_names(const char* (*wire_name)(Wire)) {
  for (int i = static_cast<int>(Wire::MIN); i <= static_cast<int>(Wire::MAX); ++i) {
    EXPECT_EQ(to_string(static_cast<E>(i)), wire_name(static_cast<Wire>(i)));
  }
  EXPECT_EQ(to_string(static_cast<E>(static_cast<int>(Wire::MAX) + 1)), "?");
}

TEST(Names, OfEnumeratorsAreThoseOfTheSchemas) {
  expect_same_names<registry::DeploymentState>(wire::EnumNameDeploymentState);
  expect_same_names<gpu_memory::BlockStatus>(wire::EnumNameBlockStatus);
  expect_same_names<gpu_memory::AllocationFailure>(wire::EnumNameAllocationFailure);
  expect_same_names<checkpoint::CheckpointState>(wire::EnumNameCheckpointState);
  expect_same_names<checkpoint::CheckpointType>(wire::EnumNameCheckpointType);
  expect_same_names<checkpoint::DeletionCause>(wire::EnumNameDeletionCause);
  expect_same_names<ActorSource>(wire::EnumNameActorSource);
  expect_same_names<IncarnationCause>(wire::EnumNameIncarnationCause);
}

TEST(Names, OfOurEnumsParseBack) {
  EXPECT_EQ(parse_actor_source("Certificate"), ActorSource::Certificate);
  EXPECT_EQ(parse_actor_source("certificate"), std::nullopt);
  EXPECT_EQ(parse_incarnation_cause("AcceptLoss"), IncarnationCause::AcceptLoss);
  EXPECT_EQ(parse_incarnation_cause(""), std::nullopt);
}

TEST(Names, OfStreamsHaveTwoParts) {
  for (const std::string name : {"model/a", "model/a/b", "pool/", "run/model/x", "server", ""}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(parse_stream(name).name(), name);
  }
  EXPECT_EQ(parse_stream("model/a/b").kind, "model/");
  EXPECT_EQ(parse_stream("model/a/b").id, "a/b");
  EXPECT_EQ(parse_stream("server").kind, "server");
  EXPECT_EQ(parse_stream("server").id, "");
}

TEST(Names, OfEventsAndTheirStreams) {
  const std::map<std::string, std::string> expected = {
      {"ModelRegistered", "model/team/vision/resnet50"},
      {"StateTransitioned", "model/bert"},
      {"ValidationRecorded", "model/team/vision/resnet50"},
      {"PoolCreated", "pool/node-1/GPU-7f3a"},
      {"BlockAllocated", "pool/node-1/GPU-7f3a"},
      {"AllocationRefused", "pool/node-1/GPU-7f3a"},
      {"BlockFreed", "pool/node-1/GPU-7f3a"},
      {"BlockCached", "pool/node-1/GPU-7f3a"},
      {"BlockPinned", "pool/node-1/GPU-7f3a"},
      {"BlockUnpinned", "pool/node-1/GPU-7f3a"},
      {"BlockTouched", "pool/node-1/GPU-7f3a"},
      {"BlockEvicted", "pool/node-1/GPU-7f3a"},
      {"BlockMoved", "pool/node-1/GPU-7f3a"},
      {"CheckpointCreated", "run/llm/run-7"},
      {"CheckpointCompleted", "run/llm/run-7"},
      {"CheckpointCorrupted", "run/llm/run-7"},
      {"CheckpointDeleted", "run/llm/run-7"},
      {"PolicySet", "run/llm/run-7"},
      {"IncarnationStarted", "server"},
      {"ClockAccepted", "server"},
  };
  std::size_t seen = 0;
  for (const auto& [name, record] : samples::records()) {
    if (name.find('-') != std::string::npos) continue;
    EXPECT_EQ(event_name(record.event), name);
    EXPECT_EQ(streams_of(record.event), std::vector{expected.at(name)}) << name;
    ++seen;
  }
  EXPECT_EQ(seen, expected.size());
  EXPECT_EQ(streams_of(checkpoint::PolicySet{}), std::vector<std::string>{"server"});
}

TEST(SessionText, IsHexadecimalAndParsesBack) {
  SessionId session{};
  session[0] = 0x0F;
  session[15] = 0xA9;
  EXPECT_EQ(format_session(session), "0f0000000000000000000000000000a9");
  EXPECT_EQ(parse_session(format_session(session)), session);
  for (const char* text : {"", "0f", "0F0000000000000000000000000000a9", "0g0000000000000000000000000000a9",
                           "0f0000000000000000000000000000a", "0f0000000000000000000000000000a90"}) {
    EXPECT_EQ(parse_session(text), std::nullopt) << text;
  }
}

TEST(HashText, IsHexadecimal) {
  Hash hash{};
  hash[31] = 0xE0;
  EXPECT_EQ(format_hash(hash), std::string(62, '0') + "e0");
}

}  // namespace
}  // namespace tensorforge
