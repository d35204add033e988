// What is encoded decodes to the same value, and the same value always encodes to the same bytes.
#include <cmath>
#include <limits>
#include <thread>
#include <tuple>

#include <gtest/gtest.h>

#include "codec/record.h"
#include "codec/reply.h"
#include "codec/request.h"
#include "codec/version_request_frame.h"
#include "registry/state_machine.h"
#include "tests/codec/bytes.h"
#include "tests/codec/random_values.h"
#include "tests/codec/samples.h"

namespace tensorforge {
namespace {

using codec::decode_client_frame, codec::encode_client_frame;
using codec::decode_note, codec::encode_note;
using codec::decode_record, codec::encode_record;
using codec::decode_server_frame, codec::encode_server_frame;
using codec::decode_snapshot_part, codec::encode_snapshot_part;

constexpr std::uint32_t kSeeds = 400;

TEST(RoundTrip, OfEverySample) {
  for (const auto& [name, record] : samples::records()) {
    SCOPED_TRACE(name);
    EXPECT_EQ(decode_record(bytes_of(encode_record(record).value())).value(), record);
  }
  for (const auto& [name, note] : samples::notes()) {
    SCOPED_TRACE(name);
    EXPECT_EQ(decode_note(bytes_of(encode_note(note))).value(), note);
  }
  for (const auto& [name, message] : samples::client_messages()) {
    SCOPED_TRACE(name);
    EXPECT_EQ(decode_client_frame(bytes_of(encode_client_frame(message).value())).value(), message);
  }
  for (const auto& [name, message] : samples::server_messages()) {
    SCOPED_TRACE(name);
    EXPECT_EQ(decode_server_frame(bytes_of(encode_server_frame(message).value())).value(), message);
  }
  for (const auto& [name, part] : samples::snapshot_parts()) {
    SCOPED_TRACE(name);
    EXPECT_EQ(decode_snapshot_part(bytes_of(encode_snapshot_part(part).value())).value(), part);
  }
}

TEST(RoundTrip, SamplesNameEveryAlternative) {
  std::set<std::string_view> events;
  for (const auto& [name, record] : samples::records()) events.insert(event_name(record.event));
  EXPECT_EQ(events.size(), 20U);
  std::set<std::size_t> queries, results;
  for (const auto& [name, message] : samples::client_messages()) {
    const auto* request = std::get_if<Request>(&message);
    if (request == nullptr) continue;
    if (const auto* query = std::get_if<Query>(&request->body)) queries.insert(query->index());
  }
  EXPECT_EQ(queries.size(), std::variant_size_v<Query>);
  for (const auto& [name, message] : samples::server_messages()) {
    if (const auto* reply = std::get_if<Reply>(&message)) results.insert(reply->result.index());
  }
  EXPECT_EQ(results.size(), std::variant_size_v<ReplyResult>);
  std::set<std::size_t> parts;
  for (const auto& [name, part] : samples::snapshot_parts()) parts.insert(part.index());
  EXPECT_EQ(parts.size(), std::variant_size_v<SnapshotPart>);
}

TEST(RoundTripProperty, OfRandomRecords) {
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomValues random(seed);
    const auto record = random.make<Record>();
    const std::string bytes = encode_record(record).value();
    ASSERT_EQ(decode_record(bytes_of(bytes)).value(), record);
    ASSERT_EQ(encode_record(record).value(), bytes);
  }
}

/// Made like most: of a command that stands by itself, in a session that has begun.
void make_usual(Record& record) {
  for (std::uint64_t* number :
       {&record.sequence, &record.time, &record.wall_time, &record.command_number, &record.answered_below}) {
    *number |= 1;
  }
  record.incarnation |= 1;
  if (!record.session) record.session = SessionId{1, 2, 3};
  samples::make_single(record);
}

TEST(RoundTripProperty, OfRandomRecordsWithAllThatMostHave) {
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomValues random(seed);
    auto record = random.make<Record>();
    make_usual(record);
    ASSERT_EQ(decode_record(bytes_of(encode_record(record).value())).value(), record);
  }
}

// A thread's first buffer has 4 KiB, and grows when a record needs more; each of these is the first of a thread.
TEST(RoundTrip, OfRecordsAboutAsLargeAsTheFirstBuffer) {
  for (std::size_t bytes = 3'600; bytes <= 4'200; bytes += 4) {
    std::thread([bytes] {
      SCOPED_TRACE(bytes);
      Record record;
      make_usual(record);
      record.event = registry::StateTransitioned{std::string(bytes, 'm'), {}, {}, {}};
      EXPECT_EQ(decode_record(bytes_of(codec::encode_record_view(record).value())).value(), record);
    }).join();
  }
}

TEST(Encode, RefusesWhatIsOverItsLimitInAnEnvelopeToo) {
  Record good;
  make_usual(good);
  good.event = registry::StateTransitioned{"bert", {}, {}, {}};
  const std::string bytes = encode_record(good).value();
  Record long_actor = good;
  long_actor.actor = std::string(codec::kMaxRecordBytes + 1, 'a');
  EXPECT_EQ(encode_record(long_actor).status().code(), absl::StatusCode::kInvalidArgument);
  Record long_event = good;
  long_event.event = registry::StateTransitioned{std::string(codec::kMaxRecordBytes - 100, 'm'), {}, {}, {}};
  EXPECT_EQ(encode_record(long_event).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(encode_record(good).value(), bytes);

  Reply reply;
  reply.correlation_id = reply.sequence = reply.incarnation = 1;
  std::string out = "before";
  for (const std::size_t models : {1, 100'000}) {
    reply.result = result::Models{std::vector<registry::ModelMetadata>(models)};
    EXPECT_EQ(codec::append_server_frame(reply, out).ok(), models == 1);
  }
  reply.result = result::Models{std::vector<registry::ModelMetadata>(1)};
  EXPECT_EQ(std::get<Reply>(decode_server_frame(bytes_of(out.substr(6))).value()), reply);
}

TEST(RoundTripProperty, OfRandomClientMessages) {
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomValues random(seed);
    const auto message = random.make<ClientMessage>();
    const std::string frame = encode_client_frame(message).value();
    ASSERT_EQ(decode_client_frame(bytes_of(frame)).value(), message);
    ASSERT_EQ(encode_client_frame(message).value(), frame);
  }
}

TEST(RoundTripProperty, OfRandomServerMessages) {
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomValues random(seed);
    const auto message = random.make<ServerMessage>();
    const std::string frame = encode_server_frame(message).value();
    ASSERT_EQ(decode_server_frame(bytes_of(frame)).value(), message);
    ASSERT_EQ(encode_server_frame(message).value(), frame);
  }
}

TEST(RoundTrip, OfBytesAtAnyAlignment) {
  const Record record = samples::records().front().value;
  const std::string bytes = encode_record(record).value();
  for (std::size_t shift = 0; shift < 8; ++shift) {
    const std::string shifted = std::string(shift, 'x') + bytes;
    EXPECT_EQ(decode_record(bytes_of(shifted).subspan(shift)).value(), record);
  }
}

TEST(RoundTrip, KeepsAbsentApartFromEmpty) {
  const auto page_of = [](const std::optional<std::string>& token) {
    const Request request{.correlation_id = 1,
                          .command_number = {},
                          .answered_below = {},
                          .if_sequence = {},
                          .reason = {},
                          .body = Query(query::ListModels{{.size = 0, .token = token}})};
    const auto decoded = decode_client_frame(bytes_of(encode_client_frame(request).value())).value();
    return std::get<query::ListModels>(std::get<Query>(std::get<Request>(decoded).body)).page.token;
  };
  EXPECT_EQ(page_of(std::nullopt), std::nullopt);
  EXPECT_EQ(page_of(""), "");
}

TEST(RoundTrip, HasOneZero) {
  registry::ValidationResult validation;
  validation.accuracy_score = -0.0;
  Record record;
  record.event = registry::ValidationRecorded{validation};
  const Record decoded = decode_record(bytes_of(encode_record(record).value())).value();
  const auto& event = std::get<registry::ValidationRecorded>(std::get<registry::Event>(decoded.event));
  EXPECT_FALSE(std::signbit(event.validation.accuracy_score));
}

TEST(Encode, RefusesARecordOverItsLimit) {
  Record record;
  gpu_memory::BlockAllocated event;
  event.evicted.resize(9'000);
  record.event = event;
  EXPECT_EQ(encode_record(record).status().code(), absl::StatusCode::kInvalidArgument);
  event.evicted.resize(8'000);
  record.event = event;
  EXPECT_TRUE(encode_record(record).ok());
}

TEST(Encode, RefusesAFrameOverOneMebibyte) {
  Request request;
  request.body = Query(query::GetPoolStats{std::string(codec::kMaxFrameBytes - 200, 'x')});
  EXPECT_LE(encode_client_frame(request).value().size(), codec::kMaxFrameBytes);
  request.body = Query(query::GetPoolStats{std::string(codec::kMaxFrameBytes, 'x')});
  EXPECT_EQ(encode_client_frame(request).status().code(), absl::StatusCode::kInvalidArgument);
  Reply reply;
  reply.result = result::Models{std::vector<registry::ModelMetadata>(100'000)};
  EXPECT_EQ(encode_server_frame(reply).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Encode, AppendsBehindWhatIsThereOrLeavesIt) {
  std::string out = "before";
  Reply reply;
  reply.correlation_id = 7;
  ASSERT_TRUE(codec::append_server_frame(reply, out).ok());
  EXPECT_EQ(out, "before" + encode_server_frame(reply).value());
  reply.result = result::Models{std::vector<registry::ModelMetadata>(100'000)};
  out = "before";
  EXPECT_EQ(codec::append_server_frame(reply, out).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(out, "before");

  Request request;
  request.body = Query(query::GetPoolStats{"gpu0"});
  ASSERT_TRUE(codec::append_client_frame(request, out).ok());
  EXPECT_EQ(out, "before" + encode_client_frame(request).value());
}

TEST(VersionRequestFrame, IsWhatEncodingGivesForEachVersionAndNumber) {
  registry::ModelMetadata model;
  model.framework = "pytorch";
  model.input_shape = {1, 3, 224, 224};
  model.tags = {{"accuracy_top1", "76.13"}, {"k", ""}};
  constexpr std::uint64_t kLargest = std::numeric_limits<std::uint64_t>::max();
  constexpr std::uint32_t kLargestPart = std::numeric_limits<std::uint32_t>::max();
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{255}}) {
    SCOPED_TRACE(bytes);
    model.model_id = std::string(bytes, 'a');
    model.version = {};
    auto registration = codec::VersionRequestFrame::make(registry::RegisterModel{model}).value();
    auto get = codec::VersionRequestFrame::make(query::GetModel{model.model_id, model.version}).value();
    for (const auto& [letter, version, number] :
         {std::tuple{'z', registry::ModelVersion{1, 2, 3}, std::uint64_t{7}},
          std::tuple{'b', registry::ModelVersion{kLargestPart, 0, kLargestPart}, kLargest},
          std::tuple{'c', registry::ModelVersion{}, std::uint64_t{1}}}) {
      model.model_id = std::string(bytes, letter);
      model.version = version;
      Request request;
      request.correlation_id = number;
      request.body = Query(query::GetModel{model.model_id, version});
      get.set_version(model.model_id, version);
      get.set_numbers(number, 5, 3);
      EXPECT_EQ(get.bytes(), encode_client_frame(request).value());

      request.command_number = number - number / 2;
      request.answered_below = number - number / 3;
      request.body = Command(registry::Command(registry::RegisterModel{model}));
      registration.set_version(model.model_id, version);
      registration.set_numbers(number, request.command_number, request.answered_below);
      EXPECT_EQ(registration.bytes(), encode_client_frame(request).value());
    }
  }
}

TEST(VersionRequestFrame, IsRefusedWhereEncodingRefuses) {
  const std::string too_long(codec::kMaxFrameBytes, 'a');
  EXPECT_EQ(codec::VersionRequestFrame::make(query::GetModel{too_long, registry::ModelVersion{}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Encode, AModelInPlaceAsOneThatWasCopied) {
  registry::ModelMetadata model;
  model.model_id = "team/resnet";
  model.version = {1, 2, 3};
  model.framework = "pytorch";
  model.input_shape = {1, 3, 224, 224};
  model.tags = {{"accuracy_top1", "76.13"}, {"k", ""}};
  Reply reply;
  reply.correlation_id = 9;
  reply.sequence = 17;
  reply.incarnation = 5;
  reply.result = result::Models{{model}};
  std::string in_place;
  registry::State state;
  registry::apply(state, registry::ModelRegistered{model});
  const registry::ModelView stored = *state.latest(model.model_id);
  ASSERT_TRUE(codec::append_server_frame(codec::ModelReply{9, 17, 5, stored}, in_place).ok());
  EXPECT_EQ(in_place, encode_server_frame(reply).value());
}

TEST(Encode, ModelsInPlaceOneAfterAnother) {
  for (std::uint32_t i = 1; i <= 64; ++i) {
    registry::ModelMetadata model;
    model.model_id = std::string(i, 'm');
    model.version = {i, 0, i};
    model.name = std::string(i % 3, 'n');
    if (i % 2 == 0) model.input_shape.assign(i % 5, i);
    if (i % 7 == 0) model.tags["k"] = "";
    registry::State state;
    registry::apply(state, registry::ModelRegistered{model});
    const registry::ModelView stored = *state.latest(model.model_id);
    std::string out;
    ASSERT_TRUE(codec::append_server_frame(codec::ModelReply{i, 1'000 + i, 2 * i, stored}, out).ok());
    Reply expected;
    expected.correlation_id = i;
    expected.sequence = 1'000 + i;
    expected.incarnation = 2 * i;
    expected.result = result::Models{{model}};
    EXPECT_EQ(std::get<Reply>(decode_server_frame(bytes_of(out)).value()), expected) << i;
  }
}

TEST(Encode, AppendsFramesThatSayWhatThoseByThemselvesDo) {
  const auto expect_same = [](const Reply& reply) {
    std::string out = "before";
    ASSERT_TRUE(codec::append_server_frame(reply, out).ok());
    ASSERT_TRUE(out.starts_with("before"));
    EXPECT_EQ(std::get<Reply>(decode_server_frame(bytes_of(out.substr(6))).value()), reply);
  };
  for (const auto& [name, message] : samples::server_messages()) {
    SCOPED_TRACE(name);
    if (const auto* reply = std::get_if<Reply>(&message)) expect_same(*reply);
  }
  for (std::uint32_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomValues random(seed);
    auto reply = random.make<Reply>();
    expect_same(reply);
    reply.status = absl::OkStatus();
    reply.next_page_token.reset();
    expect_same(reply);
  }
}

TEST(Encode, AnswersToRegistrationsAsIfEachWereTheFirst) {
  std::mt19937_64 random(7);
  const auto number = [&random] {
    return std::uniform_int_distribution<std::uint64_t>(0, 2)(random) << (random() % 64);
  };
  const auto number32 = [&] { return static_cast<std::uint32_t>(number()); };
  for (int i = 0; i < 20'000; ++i) {
    Reply reply;
    reply.correlation_id = number();
    reply.sequence = number();
    reply.incarnation = number32();
    result::Registered registered{std::string(random() % 12, static_cast<char>('a' + random() % 26)),
                                  {number32(), number32(), number32()},
                                  {},
                                  number()};
    if (random() % 8 == 0) registered.state = registry::DeploymentState::Staging;
    if (random() % 8 == 0) registered.model_id.resize(250 + random() % 10, 'a');
    if (random() % 8 == 0) reply.next_page_token = "token";
    if (random() % 8 == 0) reply.status = absl::NotFoundError("no");
    reply.result = std::move(registered);
    std::string out = "before";
    ASSERT_TRUE(codec::append_server_frame(reply, out).ok());
    ASSERT_EQ(out, "before" + encode_server_frame(reply).value()) << i;
  }
}

TEST(ViewReply, ShowsWhatDecodingGives) {
  Reply reply;
  reply.correlation_id = 9;
  reply.sequence = 17;
  reply.incarnation = 5;
  reply.result = result::Registered{"team/resnet", {1, 2, 3}, {}, 4};
  const auto view_of = [](const ServerMessage& message) {
    static std::string frame;
    frame = encode_server_frame(message).value();
    return codec::view_reply(bytes_of(frame)).value();
  };
  auto view = view_of(reply);
  ASSERT_TRUE(view);
  EXPECT_EQ(view->correlation_id, 9u);
  EXPECT_EQ(view->code, absl::StatusCode::kOk);
  EXPECT_EQ(view->sequence, 17u);
  EXPECT_EQ(view->incarnation, 5u);
  ASSERT_TRUE(view->version);
  EXPECT_EQ(view->version->model_id, "team/resnet");
  EXPECT_EQ(view->version->version, (registry::ModelVersion{1, 2, 3}));

  registry::ModelMetadata model;
  model.model_id = "bert";
  reply.result = result::Models{{model}};
  EXPECT_EQ(view_of(reply)->version->model_id, "bert");
  reply.result = result::Models{{model, model}};
  EXPECT_FALSE(view_of(reply)->version);
  reply.status = absl::NotFoundError("no");
  EXPECT_EQ(view_of(reply)->code, absl::StatusCode::kNotFound);
  EXPECT_EQ(view_of(Welcome{}), std::nullopt);
}

TEST(ViewReply, TakesNoFlippedBitForAnythingElse) {
  Reply reply;
  reply.correlation_id = 9;
  reply.result = result::Registered{"team/resnet", {1, 2, 3}, {}, 4};
  const std::string good = encode_server_frame(reply).value();
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    const auto view = codec::view_reply(bytes_of(bad));
    if (!view.ok() || !*view || !(*view)->version) continue;
    EXPECT_LE((*view)->version->model_id.size(), bad.size()) << "bit " << bit;
  }
}

TEST(Encode, LargestRecordsThatDecideCanMakeFit) {
  const std::string id(255, 'i'), path(4'096, 'p');
  registry::ModelMetadata model{id, id, {}, id, std::vector<std::size_t>(32), std::vector<std::size_t>(32), 1,
                                id, 1,  {}, {}};
  for (int i = 0; i < 256; ++i)
    model.tags[std::string(1, static_cast<char>(i % 128)) + std::to_string(i)] = path.substr(0, 58);
  const std::vector<Event> events = {
      registry::ModelRegistered{model},
      gpu_memory::BlockAllocated{id, {id, 1, 1, true, 1}, {}, 1, 1, std::vector<std::size_t>(1'000), 1},
      checkpoint::CheckpointDeleted{{}, id, {}, path, 1, true}};
  Record record = samples::records().front().value;
  record.actor = id;
  for (const Event& event : events) {
    record.event = event;
    EXPECT_TRUE(encode_record(record).ok()) << event_name(event);
  }
}

}  // namespace
}  // namespace tensorforge
