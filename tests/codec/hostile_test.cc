// Bytes that no encoder of ours makes: each is refused, and none crashes, hangs or decodes to more than it holds.
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/record.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "command_generated.h"
#include "event_generated.h"
#include "reply_generated.h"
#include "snapshot_generated.h"
#include "tests/codec/bytes.h"
#include "tests/codec/samples.h"

namespace tensorforge {
namespace {

using absl::StatusCode;
using codec::decode_client_frame;
using codec::decode_record;
using codec::decode_server_frame;
using codec::decode_snapshot_part;
using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;
using testing::HasSubstr;

std::string message_of(const absl::Status& status) { return std::string(status.message()); }

// ---- building what the encoder would not

std::string bytes_in(const FlatBufferBuilder& fbb) {
  return {reinterpret_cast<const char*>(fbb.GetBufferPointer()), fbb.GetSize()};
}

using BuildEvent = std::function<std::pair<wire::Event, Offset<void>>(FlatBufferBuilder&)>;
std::string record_with(const BuildEvent& build) {
  FlatBufferBuilder fbb;
  const auto actor = fbb.CreateString("actor");
  const auto [type, event] = build(fbb);
  wire::RecordBuilder record(fbb);
  record.add_actor(actor);
  record.add_event_type(type);
  record.add_event(event);
  fbb.Finish(record.Finish(), wire::RecordIdentifier());
  return bytes_in(fbb);
}

using BuildCommand = std::function<std::pair<wire::Command, Offset<void>>(FlatBufferBuilder&)>;
std::string frame_with(const BuildCommand& build) {
  FlatBufferBuilder fbb;
  const auto [type, command] = build(fbb);
  wire::RequestBuilder request(fbb);
  request.add_correlation_id(9);
  request.add_command_type(type);
  request.add_command(command);
  const auto message = request.Finish().Union();
  fbb.FinishSizePrefixed(wire::CreateClientFrame(fbb, wire::ClientMessage::Request, message),
                         wire::ClientFrameIdentifier());
  return bytes_in(fbb);
}

std::string query_frame_with(const std::function<std::pair<wire::Query, Offset<void>>(FlatBufferBuilder&)>& build) {
  FlatBufferBuilder fbb;
  const auto [type, query] = build(fbb);
  wire::RequestBuilder request(fbb);
  request.add_correlation_id(9);
  request.add_query_type(type);
  request.add_query(query);
  const auto message = request.Finish().Union();
  fbb.FinishSizePrefixed(wire::CreateClientFrame(fbb, wire::ClientMessage::Request, message),
                         wire::ClientFrameIdentifier());
  return bytes_in(fbb);
}

std::string server_frame_with(FlatBufferBuilder& fbb, Offset<wire::Reply> reply) {
  fbb.FinishSizePrefixed(wire::CreateServerFrame(fbb, wire::ServerMessage::Reply, reply.Union()),
                         wire::ServerFrameIdentifier());
  return bytes_in(fbb);
}

Offset<void> register_model(FlatBufferBuilder& fbb, Offset<flatbuffers::String> id,
                            const std::vector<Offset<wire::Tag>>& tags, bool with_version = true) {
  const auto tag_vector = fbb.CreateVector(tags);
  const wire::Version version(1, 2, 3);
  wire::ModelBuilder model(fbb);
  if (!id.IsNull()) model.add_model_id(id);
  if (with_version) model.add_version(&version);
  model.add_tags(tag_vector);
  return wire::CreateRegisterModel(fbb, model.Finish()).Union();
}

std::string model_frame_with(const std::function<std::vector<Offset<wire::Tag>>(FlatBufferBuilder&)>& tags) {
  return frame_with([&](FlatBufferBuilder& fbb) {
    const auto id = fbb.CreateString("resnet");
    return std::pair(wire::Command::RegisterModel, register_model(fbb, id, tags(fbb)));
  });
}

void expect_refused(const std::string& frame, std::string_view part_of_message) {
  const auto decoded = decode_client_frame(bytes_of(frame));
  EXPECT_EQ(decoded.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(message_of(decoded.status()), HasSubstr(part_of_message));
}
void expect_record_refused(const std::string& record, StatusCode code, std::string_view part_of_message) {
  const auto decoded = decode_record(bytes_of(record));
  EXPECT_EQ(decoded.status().code(), code);
  EXPECT_THAT(message_of(decoded.status()), HasSubstr(part_of_message));
}

// ---- damage

/// A copy whose end is the end of its allocation, so that AddressSanitizer sees a read beyond it.
template <class Decode>
auto decode_exactly(std::string_view bytes, Decode decode) {
  const std::vector<char> exact(bytes.begin(), bytes.end());
  return decode(std::as_bytes(std::span(exact)));
}

template <class T, class Decode>
void expect_truncations_refused(const std::string& bytes, const T& value, Decode decode) {
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const auto decoded = decode_exactly(bytes.substr(0, size), decode);
    // The end of a buffer may be padding.
    if (decoded.ok()) {
      EXPECT_GT(size + 8, bytes.size());
      EXPECT_EQ(*decoded, value);
    }
  }
}

template <class Decode>
void expect_bit_flips_survived(std::string bytes, const std::vector<StatusCode>& codes, Decode decode) {
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    const auto flip = static_cast<char>(1 << (bit % 8));
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ flip);
    const auto decoded = decode_exactly(bytes, decode);
    if (!decoded.ok()) {
      EXPECT_THAT(codes, testing::Contains(decoded.status().code())) << "bit " << bit;
    }
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ flip);
  }
}

TEST(Damage, TruncationAtEveryLengthIsRefused) {
  for (const auto& [name, record] : samples::records()) {
    SCOPED_TRACE(name);
    expect_truncations_refused(codec::encode_record(record).value(), record, decode_record);
  }
  for (const auto& [name, note] : samples::notes()) {
    SCOPED_TRACE(name);
    expect_truncations_refused(codec::encode_note(note), note, codec::decode_note);
  }
  for (const auto& [name, message] : samples::client_messages()) {
    SCOPED_TRACE(name);
    expect_truncations_refused(codec::encode_client_frame(message).value(), message, decode_client_frame);
  }
  for (const auto& [name, message] : samples::server_messages()) {
    SCOPED_TRACE(name);
    expect_truncations_refused(codec::encode_server_frame(message).value(), message, decode_server_frame);
  }
  for (const auto& [name, part] : samples::snapshot_parts()) {
    SCOPED_TRACE(name);
    expect_truncations_refused(codec::encode_snapshot_part(part).value(), part, decode_snapshot_part);
  }
}

TEST(Damage, EverySingleBitFlipIsSurvived) {
  for (const auto& [name, record] : samples::records()) {
    SCOPED_TRACE(name);
    expect_bit_flips_survived(codec::encode_record(record).value(), {StatusCode::kDataLoss, StatusCode::kUnimplemented},
                              decode_record);
  }
  for (const auto& [name, message] : samples::client_messages()) {
    SCOPED_TRACE(name);
    expect_bit_flips_survived(codec::encode_client_frame(message).value(), {StatusCode::kInvalidArgument},
                              decode_client_frame);
  }
  for (const auto& [name, message] : samples::server_messages()) {
    SCOPED_TRACE(name);
    expect_bit_flips_survived(codec::encode_server_frame(message).value(), {StatusCode::kInvalidArgument},
                              decode_server_frame);
  }
  for (const auto& [name, part] : samples::snapshot_parts()) {
    SCOPED_TRACE(name);
    expect_bit_flips_survived(codec::encode_snapshot_part(part).value(),
                              {StatusCode::kDataLoss, StatusCode::kUnimplemented}, decode_snapshot_part);
  }
}

TEST(Damage, BytesOfAnotherKindAreRefused) {
  const std::string record = codec::encode_record(samples::records().front().value).value();
  const std::string request = codec::encode_client_frame(samples::client_messages().front().value).value();
  const std::string reply = codec::encode_server_frame(samples::server_messages().front().value).value();
  const std::string note = codec::encode_note(samples::notes().front().value);
  for (const std::string& bytes : {request, reply, note, std::string(), std::string(64, '\0')}) {
    EXPECT_EQ(decode_record(bytes_of(bytes)).status().code(), StatusCode::kDataLoss);
  }
  for (const std::string& bytes : {record, reply, note, std::string("GET / HTTP/1.1\r\n\r\n"), std::string(64, '\0')}) {
    EXPECT_EQ(decode_client_frame(bytes_of(bytes)).status().code(), StatusCode::kInvalidArgument);
  }
  for (const std::string& bytes : {record, request, note, std::string(64, '\xFF')}) {
    EXPECT_EQ(decode_server_frame(bytes_of(bytes)).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST(Damage, ASnapshotPageThatSharesItsTablesIsRefused) {
  FlatBufferBuilder fbb;
  const auto name = fbb.CreateString(std::string(200, 'x'));
  const auto stream = wire::CreateSnapshotStream(fbb, name, 7);
  const auto streams = fbb.CreateVector(std::vector(10'000, stream));  // 200 times the bytes that it takes
  const auto part = wire::CreateSnapshotStreams(fbb, streams);
  fbb.Finish(wire::CreateSnapshotPage(fbb, wire::SnapshotPart::SnapshotStreams, part.Union()),
             wire::SnapshotPageIdentifier());
  const absl::Status status = decode_snapshot_part(bytes_of(bytes_in(fbb))).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(message_of(status), HasSubstr("shared"));
}

TEST(Damage, ASnapshotPageOfANewerVersionIsRefused) {
  FlatBufferBuilder fbb;
  const auto part = wire::CreateSnapshotStreams(fbb);
  fbb.Finish(wire::CreateSnapshotPage(fbb, static_cast<wire::SnapshotPart>(200), part.Union()),
             wire::SnapshotPageIdentifier());
  EXPECT_EQ(decode_snapshot_part(bytes_of(bytes_in(fbb))).status().code(), StatusCode::kUnimplemented);
}

TEST(Damage, ALengthOfFourGibibytesIsRefused) {
  std::string frame = codec::encode_client_frame(samples::client_messages().front().value).value();
  std::memset(frame.data(), 0xFF, 4);  // the frame's
  expect_refused(frame, "malformed");

  frame = query_frame_with([](FlatBufferBuilder& fbb) {
    return std::pair(wire::Query::GetPoolStats, wire::CreateGetPoolStats(fbb, fbb.CreateString("gpu0")).Union());
  });
  const std::size_t text = frame.find("gpu0");
  std::memset(frame.data() + text - 4, 0xFF, 4);  // a string's
  expect_refused(frame, "malformed");

  frame = model_frame_with(
      [](FlatBufferBuilder& fbb) { return std::vector{wire::CreateTag(fbb, fbb.CreateString("k"), 0)}; });
  const auto* request = flatbuffers::GetSizePrefixedRoot<wire::ClientFrame>(frame.data())->message_as_Request();
  const auto* tags = reinterpret_cast<const char*>(request->command_as_RegisterModel()->model()->tags());
  std::memset(frame.data() + (tags - frame.data()), 0xFF, 4);  // a vector's
  expect_refused(frame, "malformed");
}

TEST(Damage, AFrameOverOneMebibyteIsRefused) {
  FlatBufferBuilder fbb;
  const auto client = fbb.CreateString(std::string(codec::kMaxFrameBytes, 'x'));
  wire::HelloBuilder hello(fbb);
  hello.add_client(client);
  const auto message = hello.Finish().Union();
  fbb.FinishSizePrefixed(wire::CreateClientFrame(fbb, wire::ClientMessage::Hello, message),
                         wire::ClientFrameIdentifier());
  expect_refused(bytes_in(fbb), "malformed");
}

// ---- what the verifier accepts

TEST(Unknown, MembersOfAUnionAreFromANewerVersion) {
  const auto unknown_event = record_with([](FlatBufferBuilder& fbb) {
    return std::pair(static_cast<wire::Event>(200), wire::CreateClockAccepted(fbb, 1).Union());
  });
  expect_record_refused(unknown_event, StatusCode::kUnimplemented, "event 200 is unknown: written by a newer version");
  expect_refused(frame_with([](FlatBufferBuilder& fbb) {
                   return std::pair(static_cast<wire::Command>(200), wire::CreateAcceptClock(fbb).Union());
                 }),
                 "command 200 is unknown");
  expect_refused(query_frame_with([](FlatBufferBuilder& fbb) {
                   return std::pair(static_cast<wire::Query>(200), wire::CreateGetStatus(fbb).Union());
                 }),
                 "query 200 is unknown");
  FlatBufferBuilder fbb;
  const auto body = wire::CreateHello(fbb).Union();
  fbb.FinishSizePrefixed(wire::CreateClientFrame(fbb, static_cast<wire::ClientMessage>(200), body),
                         wire::ClientFrameIdentifier());
  expect_refused(bytes_in(fbb), "message 200 is unknown");
}

TEST(Unknown, EnumeratorsAreFromANewerVersion) {
  constexpr auto kUnknown = static_cast<wire::DeploymentState>(200);
  const wire::Version version(1, 2, 3);
  const auto record = record_with([&](FlatBufferBuilder& fbb) {
    const auto id = fbb.CreateString("resnet");
    return std::pair(
        wire::Event::StateTransitioned,
        wire::CreateStateTransitioned(fbb, id, &version, wire::DeploymentState::Staging, kUnknown).Union());
  });
  expect_record_refused(record, StatusCode::kUnimplemented,
                        "deployment state 200 is unknown: written by a newer version");
  expect_refused(frame_with([&](FlatBufferBuilder& fbb) {
                   const auto id = fbb.CreateString("resnet");
                   return std::pair(wire::Command::TransitionState,
                                    wire::CreateTransitionState(fbb, id, &version, kUnknown).Union());
                 }),
                 "deployment state 200 is unknown");
  FlatBufferBuilder fbb;
  const auto message = fbb.CreateString("no");
  EXPECT_EQ(
      decode_server_frame(bytes_of(server_frame_with(fbb, wire::CreateReply(fbb, 1, 200, message)))).status().code(),
      StatusCode::kInvalidArgument);
}

/// A table with one field beyond every field that there is.
Offset<void> table_with_unknown_field(FlatBufferBuilder& fbb) {
  const auto start = fbb.StartTable();
  fbb.AddElement<std::uint64_t>(flatbuffers::FieldIndexToOffset(60), 1, 0);
  return {fbb.EndTable(start)};
}

TEST(Unknown, FieldsAreFromANewerVersionInTheLogAndInRequests) {
  expect_record_refused(record_with([](FlatBufferBuilder& fbb) {
                          return std::pair(wire::Event::ClockAccepted, table_with_unknown_field(fbb));
                        }),
                        StatusCode::kUnimplemented, "ClockAccepted has an unknown field: written by a newer version");
  expect_refused(frame_with([](FlatBufferBuilder& fbb) {
                   return std::pair(wire::Command::AcceptClock, table_with_unknown_field(fbb));
                 }),
                 "AcceptClock has an unknown field");
}

TEST(Unknown, FieldsOfAHelloAndOfAReplyArePassedOver) {
  FlatBufferBuilder fbb;
  const auto hello = table_with_unknown_field(fbb);
  fbb.FinishSizePrefixed(wire::CreateClientFrame(fbb, wire::ClientMessage::Hello, hello),
                         wire::ClientFrameIdentifier());
  EXPECT_EQ(decode_client_frame(bytes_of(bytes_in(fbb))).value(), ClientMessage(Hello{}));

  fbb.Clear();
  const auto done = table_with_unknown_field(fbb);
  wire::ReplyBuilder reply(fbb);
  reply.add_result_type(wire::Result::Done);
  reply.add_result(done);
  EXPECT_EQ(decode_server_frame(bytes_of(server_frame_with(fbb, reply.Finish()))).value(), ServerMessage(Reply{}));
}

TEST(Reserved, FieldsAreRefusedUntilTheyMeanSomething) {
  const auto allocate = [](std::string_view owner, std::uint64_t lease_until) {
    return frame_with([=](FlatBufferBuilder& fbb) {
      const auto device = fbb.CreateString("gpu0"), tensor = fbb.CreateString("t");
      const auto owner_text =
          owner.empty() ? Offset<flatbuffers::String>() : fbb.CreateString(owner.data(), owner.size());
      const auto request = wire::CreateAllocationRequest(fbb, tensor, 1, 1, false, 0, owner_text, lease_until);
      return std::pair(wire::Command::Allocate, wire::CreateAllocate(fbb, device, request).Union());
    });
  };
  EXPECT_TRUE(decode_client_frame(bytes_of(allocate("", 0))).ok());
  expect_refused(allocate("somebody", 0), "lease");
  expect_refused(allocate("", 1), "lease");
  expect_refused(
      frame_with([](FlatBufferBuilder& fbb) {
        const auto run = fbb.CreateString("run");
        const auto request = wire::CreateCheckpointRequest(fbb, run, 0, 0, wire::CheckpointType::Full, 0, 8, 0);
        return std::pair(wire::Command::CreateCheckpoint, wire::CreateCreateCheckpoint(fbb, request).Union());
      }),
      "world");
}

TEST(Text, ThatIsNotUtf8IsRefused) {
  for (const std::string bad : {"\xFF", "\xC3", "a\xED\xA0\x80", "\xF5\x80\x80\x80", "\xC0\xAF"}) {
    registry::ModelMetadata bad_key, bad_value;
    bad_key.tags[bad] = "";
    bad_value.tags["key"] = bad;
    registry::ValidationResult validation;
    validation.errors = {bad};
    const std::vector<Request> requests = {
        {1, 1, 1, {}, bad, Command(AcceptClock{})},
        {1, 1, 1, {}, "", Command(gpu_memory::FreeBlock{bad, "b"})},
        {1, 1, 1, {}, "", Command(gpu_memory::FreeBlock{"gpu0", bad})},
        {1, 1, 1, {}, "", Command(registry::RegisterModel{bad_key})},
        {1, 1, 1, {}, "", Command(registry::RegisterModel{bad_value})},
        {1, 1, 1, {}, "", Command(registry::RecordValidation{validation})},
        {1, 1, 1, {}, "", Command(checkpoint::SetPolicy{bad, {}})},
        {1, 1, 1, {}, "", Query(query::ReadHistory{bad, {}})},
    };
    for (const Request& request : requests) {
      expect_refused(codec::encode_client_frame(request).value(), "is not valid UTF-8");
    }
    Record record;
    record.event = registry::ValidationRecorded{validation};
    expect_record_refused(codec::encode_record(record).value(), StatusCode::kDataLoss, "is not valid UTF-8");
  }
}

TEST(Absent, RequiredFieldsAreNamed) {
  const auto command = [](wire::Command type, const std::function<Offset<void>(FlatBufferBuilder&)>& build) {
    return frame_with([&](FlatBufferBuilder& fbb) { return std::pair(type, build(fbb)); });
  };
  const struct {
    std::string frame;
    const char* message;
  } cases[] = {
      {command(wire::Command::RegisterModel, [](auto& fbb) { return wire::CreateRegisterModel(fbb).Union(); }),
       "model is absent"},
      {command(wire::Command::RegisterModel, [](auto& fbb) { return register_model(fbb, {}, {}); }),
       "model id is absent"},
      {command(wire::Command::RegisterModel,
               [](auto& fbb) { return register_model(fbb, fbb.CreateString("m"), {}, false); }),
       "model version is absent"},
      {command(wire::Command::RegisterModel,
               [](auto& fbb) {
                 return register_model(fbb, fbb.CreateString("m"), {wire::CreateTag(fbb, 0, fbb.CreateString("v"))});
               }),
       "tag is absent"},
      {command(wire::Command::Allocate,
               [](auto& fbb) { return wire::CreateAllocate(fbb, fbb.CreateString("gpu0")).Union(); }),
       "allocation request is absent"},
      {command(wire::Command::FreeBlock,
               [](auto& fbb) { return wire::CreateFreeBlock(fbb, fbb.CreateString("gpu0")).Union(); }),
       "block id is absent"},
      {command(wire::Command::SetPolicy, [](auto& fbb) { return wire::CreateSetPolicy(fbb).Union(); }),
       "policy is absent"},
      {command(wire::Command::AcceptClock, [](auto&) { return Offset<void>(); }), "command is absent"},
      {command(wire::Command::NONE, [](auto&) { return Offset<void>(); }), "takes a command or a query"},
  };
  for (const auto& [frame, message] : cases) {
    SCOPED_TRACE(message);
    expect_refused(frame, message);
  }
  FlatBufferBuilder empty;
  empty.FinishSizePrefixed(wire::CreateClientFrame(empty), wire::ClientFrameIdentifier());
  expect_refused(bytes_in(empty), "message is absent");
  expect_record_refused(record_with([](FlatBufferBuilder&) { return std::pair(wire::Event::NONE, Offset<void>()); }),
                        StatusCode::kDataLoss, "event is absent");
  expect_record_refused(record_with([](FlatBufferBuilder& fbb) {
                          return std::pair(wire::Event::BlockFreed,
                                           wire::CreateBlockFreed(fbb, fbb.CreateString("gpu0")).Union());
                        }),
                        StatusCode::kDataLoss, "block is absent");
}

TEST(Absent, AnOffsetOfZeroIsNoElement) {
  std::string frame = model_frame_with(
      [](FlatBufferBuilder& fbb) { return std::vector{wire::CreateTag(fbb, fbb.CreateString("k"), 0)}; });
  const auto* request = flatbuffers::GetSizePrefixedRoot<wire::ClientFrame>(frame.data())->message_as_Request();
  const auto* tags = reinterpret_cast<const char*>(request->command_as_RegisterModel()->model()->tags());
  std::memset(frame.data() + (tags - frame.data()) + 4, 0, 4);
  EXPECT_EQ(decode_client_frame(bytes_of(frame)).status().code(), StatusCode::kInvalidArgument);
}

TEST(Requests, TakeACommandOrAQueryAndNotBoth) {
  FlatBufferBuilder fbb;
  const auto command = wire::CreateAcceptClock(fbb).Union();
  const auto query = wire::CreateGetStatus(fbb).Union();
  const auto request = wire::CreateRequest(fbb, 1, 1, 1, flatbuffers::nullopt, 0, wire::Command::AcceptClock, command,
                                           wire::Query::GetStatus, query);
  fbb.FinishSizePrefixed(wire::CreateClientFrame(fbb, wire::ClientMessage::Request, request.Union()),
                         wire::ClientFrameIdentifier());
  expect_refused(bytes_in(fbb), "one only");
}

// ---- batches and nesting

TEST(Batches, HoldOneToAHundredCommandsAndNoBatch) {
  const auto batch_of = [](std::size_t count) {
    return codec::encode_client_frame(
               Request{1, 1, 1, {}, "", Command(Batch{std::vector<BatchItem>(count, BatchItem{AcceptClock{}, {}})})})
        .value();
  };
  EXPECT_TRUE(decode_client_frame(bytes_of(batch_of(1))).ok());
  EXPECT_TRUE(decode_client_frame(bytes_of(batch_of(100))).ok());
  expect_refused(batch_of(0), "Batch of 0 commands; it takes 1 to 100");
  expect_refused(batch_of(101), "Batch of 101 commands; it takes 1 to 100");
  expect_refused(frame_with([](FlatBufferBuilder& fbb) {
                   const auto inner = wire::CreateBatch(fbb).Union();
                   const auto item = wire::CreateBatchItem(fbb, wire::Command::Batch, inner);
                   const auto items = fbb.CreateVector(std::vector{item});
                   return std::pair(wire::Command::Batch, wire::CreateBatch(fbb, items).Union());
                 }),
                 "a Batch may not stand in a Batch");
}

TEST(Nesting, ThatIsDeepIsRefused) {
  for (const int depth : {3, 10, 1'000, 20'000}) {
    SCOPED_TRACE(depth);
    FlatBufferBuilder fbb;
    auto reply = wire::CreateReply(fbb, 0, 0, 0, 0, wire::Result::Done, wire::CreateDone(fbb).Union());
    for (int i = 0; i < depth; ++i) {
      const auto replies = fbb.CreateVector(std::vector{reply});
      reply =
          wire::CreateReply(fbb, 0, 0, 0, 0, wire::Result::BatchResult, wire::CreateBatchResult(fbb, replies).Union());
    }
    EXPECT_EQ(decode_server_frame(bytes_of(server_frame_with(fbb, reply))).ok(), depth == 3);
  }
}

// ---- little that means to become much

TEST(Maps, AreReadInAnyOrderAndHoldAKeyOnce) {
  const auto tags = [](std::vector<std::string> keys) {
    return model_frame_with([&](FlatBufferBuilder& fbb) {
      std::vector<Offset<wire::Tag>> out;
      for (const auto& key : keys) {
        const auto key_text = fbb.CreateString(key), value = fbb.CreateString("of " + key);
        out.push_back(wire::CreateTag(fbb, key_text, value));
      }
      return out;
    });
  };
  const ClientMessage message = decode_client_frame(bytes_of(tags({"b", "c", "a"}))).value();
  const auto& command = std::get<SingleCommand>(std::get<Command>(std::get<Request>(message).body));
  const auto& model = std::get<registry::RegisterModel>(std::get<registry::Command>(command)).model;
  EXPECT_EQ(copy_of(model.view()).tags,
            (std::map<std::string, std::string>{{"a", "of a"}, {"b", "of b"}, {"c", "of c"}}));
  for (const auto& twice :
       {std::vector<std::string>{"a", "b", "a"}, {"b", "a", "b"}, {"a", "a"}, {"b", "c", "a", "c"}}) {
    EXPECT_THAT(message_of(decode_client_frame(bytes_of(tags(twice))).status()), HasSubstr("is given twice"));
  }
  expect_refused(tags({"a", "b", "a"}), "tag \"a\" is given twice");
}

TEST(Maps, OfAMillionEntriesAreRefused) {
  // As many honest entries as a frame holds are a matter for the domain's limit; they cost what they hold.
  const auto honest = model_frame_with([](FlatBufferBuilder& fbb) {
    std::vector<Offset<wire::Tag>> tags;
    for (int i = 0; i < 30'000; ++i) tags.push_back(wire::CreateTag(fbb, fbb.CreateString(std::to_string(i)), 0));
    return tags;
  });
  ASSERT_LE(honest.size(), codec::kMaxFrameBytes);
  EXPECT_TRUE(decode_client_frame(bytes_of(honest)).ok());

  const auto shared = [](std::size_t count) {
    return model_frame_with(
        [count](FlatBufferBuilder& fbb) { return std::vector(count, wire::CreateTag(fbb, fbb.CreateString("k"), 0)); });
  };
  expect_refused(shared(1'000'000), "malformed");  // over 1 MiB
  expect_refused(shared(250'000), "malformed");    // over 65,536 tables
  expect_refused(shared(60'000), "given twice");
}

TEST(SharedOffsets, OfOneStringDecodeToNoMoreThanTheFrame) {
  const auto bomb = query_frame_with([](FlatBufferBuilder& fbb) {
    const auto id = fbb.CreateString(std::string(64 * 1024, 'x'));
    const auto ids = fbb.CreateVector(std::vector(240'000, id));  // 15 GB
    return std::pair(wire::Query::BestModel, wire::CreateBestModel(fbb, ids).Union());
  });
  ASSERT_LE(bomb.size(), codec::kMaxFrameBytes);
  expect_refused(bomb, "decodes to more than it holds");
}

TEST(SharedOffsets, OfOneTableDecodeToNoMoreThanTheFrame) {
  FlatBufferBuilder fbb;
  const wire::Version version(1, 2, 3);
  const auto id = fbb.CreateString("m");
  const auto shape = fbb.CreateVector(std::vector<std::uint64_t>(50'000, 7));
  const auto model = wire::CreateModel(fbb, id, 0, &version, 0, shape, shape);
  const auto models = fbb.CreateVector(std::vector(60'000, model));  // 48 GB
  const auto result = wire::CreateModels(fbb, models).Union();
  const auto bomb = server_frame_with(fbb, wire::CreateReply(fbb, 1, 0, 0, 1, wire::Result::Models, result));
  ASSERT_LE(bomb.size(), codec::kMaxFrameBytes);
  const auto decoded = decode_server_frame(bytes_of(bomb));
  EXPECT_EQ(decoded.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(message_of(decoded.status()), HasSubstr("decodes to more than it holds"));
}

TEST(SharedOffsets, InARecordAreDamage) {
  const auto bomb = record_with([](FlatBufferBuilder& fbb) {
    const auto id = fbb.CreateString("m");
    const auto error = fbb.CreateString(std::string(16 * 1024, 'x'));
    const auto errors = fbb.CreateVector(std::vector(10'000, error));
    const wire::Version version(1, 2, 3);
    const auto validation = wire::CreateValidation(fbb, id, &version, false, 0, 0, 0, errors);
    return std::pair(wire::Event::ValidationRecorded, wire::CreateValidationRecorded(fbb, validation).Union());
  });
  ASSERT_LE(bomb.size(), codec::kMaxRecordBytes);
  expect_record_refused(bomb, StatusCode::kDataLoss, "decodes to more than it holds");
}

// ---- whose frame it was

TEST(CorrelationId, IsKnownOfARefusedRequestThatVerifies) {
  const auto unknown = frame_with([](FlatBufferBuilder& fbb) {
    return std::pair(static_cast<wire::Command>(200), wire::CreateAcceptClock(fbb).Union());
  });
  EXPECT_EQ(codec::correlation_id_of(bytes_of(unknown)), 9U);
  EXPECT_EQ(codec::correlation_id_of(bytes_of(unknown.substr(0, 40))), std::nullopt);
  EXPECT_EQ(codec::correlation_id_of(bytes_of(codec::encode_client_frame(Hello{}).value())), std::nullopt);
  Request without;
  without.body = Command(AcceptClock{});
  EXPECT_EQ(codec::correlation_id_of(bytes_of(codec::encode_client_frame(without).value())), std::nullopt);
}

}  // namespace
}  // namespace tensorforge
