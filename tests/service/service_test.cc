#include "service/service.h"

#include <random>
#include <set>

#include <gmock/gmock.h>
#include <openssl/sha.h>

#include "tests/support/service_fixture.h"

namespace tensorforge::test {
namespace {

using absl::StatusCode;
using registry::DeploymentState;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

std::string message_of(const Reply& reply) { return std::string(reply.status.message()); }

// ---- one command

TEST_F(ServiceTest, TheFirstRecordBeginsTheIncarnation) {
  const Record first = record(1);
  EXPECT_EQ(first.sequence, 1u);
  EXPECT_EQ(first.actor_source, ActorSource::System);
  const auto& started = std::get<IncarnationStarted>(std::get<ServerEvent>(first.event));
  EXPECT_EQ(started.previous, 0u);
  EXPECT_EQ(started.first_sequence, 1u);
  EXPECT_EQ(format_hash(started.root), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
      << "of the empty tree";
  EXPECT_EQ(state().incarnation(), kIncarnation);
  EXPECT_EQ(state().last_of("server"), 1u);
}

TEST_F(ServiceTest, ARecordSaysWhoAskedWhenAndUnderWhichNumber) {
  tick(5);
  run(register_model("resnet"), {.number = 7, .answered_below = 6});
  const Record made = record(2);
  EXPECT_EQ(made.time, kStart + 5);
  EXPECT_EQ(made.wall_time, kStart + 5);
  EXPECT_EQ(made.incarnation, kIncarnation);
  EXPECT_EQ(made.actor, "ann");
  EXPECT_EQ(made.actor_source, ActorSource::Asserted);
  EXPECT_EQ(made.session, kSession);
  EXPECT_EQ(made.command_number, 7u);
  EXPECT_EQ(made.answered_below, 6u);
  EXPECT_EQ(made.opened_at, 1u);
  EXPECT_EQ(made.parts, 1u);
  EXPECT_EQ(made.batch_size, 0u);
  EXPECT_EQ(made.note_hash, std::nullopt);
  run(register_model("bert"), {.number = 8});
  EXPECT_EQ(record(3).opened_at, std::nullopt) << "only a session's first record says it";
}

TEST_F(ServiceTest, StampsTheTimeOfRegistration) {
  tick(1234);
  const Reply reply = run(register_model("resnet"));
  EXPECT_EQ(result_of<result::Registered>(reply),
            (result::Registered{"resnet", {1, 0, 0}, DeploymentState::Registered, kStart + 1234}));
  EXPECT_EQ(reply.sequence, 2u);
  EXPECT_EQ(reply.incarnation, kIncarnation);
}

TEST_F(ServiceTest, TimeNeverGoesBack) {
  run(register_model("a"));
  step(static_cast<std::uint64_t>(-5'000), 10);
  run(register_model("b"));
  EXPECT_EQ(record(3).time, kStart);
  EXPECT_EQ(record(3).wall_time, kStart - 5'000);
}

TEST_F(ServiceTest, AReasonBecomesANoteBehindASaltedHash) {
  run(register_model("resnet"), {.reason = "quarterly release"});
  run(register_model("bert"));
  flush();
  const auto note = journal_->note(2);
  ASSERT_TRUE(note.ok() && *note);
  const auto decoded = codec::decode_note(std::as_bytes(std::span((*note)->bytes)));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(*decoded, (Note{"quarterly release", "", "10.0.0.1:99"}));
  std::string salted((*note)->salt.begin(), (*note)->salt.end());
  salted += (*note)->bytes;
  Hash hash{};
  SHA256(reinterpret_cast<const unsigned char*>(salted.data()), salted.size(), hash.data());
  EXPECT_EQ(record(2).note_hash, hash);
  EXPECT_EQ(record(3).note_hash, std::nullopt);
}

TEST_F(ServiceTest, ARefusalChangesNothing) {
  run(register_model("resnet"));
  const Digest before = state().digest();
  EXPECT_EQ(code(register_model("resnet")), StatusCode::kAlreadyExists);
  EXPECT_EQ(code(transition("resnet", DeploymentState::Production)), StatusCode::kFailedPrecondition);
  EXPECT_EQ(code(transition("bert", DeploymentState::Validating)), StatusCode::kNotFound);
  EXPECT_EQ(code(register_model("")), StatusCode::kInvalidArgument);
  EXPECT_EQ(state().sequence, 2u);
  EXPECT_EQ(state().digest(), before);
  EXPECT_EQ(service_->refused(), 4u);
}

TEST_F(ServiceTest, ARefusedAllocationIsRecordedAndAnsweredAsAnError) {
  run(create_pool("gpu0", 1000));
  const Reply first = run(allocate("gpu0", 2000), {.number = 9});
  EXPECT_EQ(first.status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(message_of(first), HasSubstr("larger than the pool"));
  EXPECT_EQ(first.sequence, 3u);
  EXPECT_TRUE(std::holds_alternative<gpu_memory::AllocationRefused>(std::get<gpu_memory::Event>(record(3).event)));
  EXPECT_EQ(run(allocate("gpu0", 2000), {.number = 9}), first);
}

TEST_F(ServiceTest, ATouchWithinTheGranularityIsAnsweredWithoutAnEvent) {
  run(create_pool("gpu0", 1000));
  const std::string block = result_of<result::Allocated>(run(allocate("gpu0", 10))).block_id;
  tick(999);
  const Reply near = run(touch("gpu0", block));
  EXPECT_TRUE(near.status.ok());
  EXPECT_EQ(near.sequence, 3u) << "that of the state";
  tick(1);
  EXPECT_EQ(run(touch("gpu0", block)).sequence, 4u);
}

TEST_F(ServiceTest, ACommandOfManyEventsIsAnsweredByTheirSum) {
  config_.max_changes = 3;
  start(config_, {});
  run(create_pool("gpu0", 1000));
  for (int i = 0; i < 5; ++i) {
    run(cache("gpu0", result_of<result::Allocated>(run(allocate("gpu0", 100))).block_id));
  }
  const Sequence before = state().sequence;
  const Reply first = run(evict("gpu0", 500), {.number = 100});
  EXPECT_EQ(result_of<result::Evicted>(first), (result::Evicted{300, 3, true}));
  EXPECT_EQ(first.sequence, before + 3);
  EXPECT_EQ(record(before + 2).part, 1u);
  EXPECT_EQ(record(before + 2).parts, 3u);
  EXPECT_EQ(run(evict("gpu0", 500), {.number = 100}), first) << "the answer of a retry";
  EXPECT_EQ(result_of<result::Evicted>(run(evict("gpu0", 200))), (result::Evicted{200, 2, false}));
  EXPECT_EQ(result_of<result::Evicted>(run(evict("gpu0", 200))), (result::Evicted{0, 0, false}));
}

TEST_F(ServiceTest, DefragmentTellsItsMoves) {
  run(create_pool("gpu0", 1000));
  const std::string first = result_of<result::Allocated>(run(allocate("gpu0", 100))).block_id;
  const std::string second = result_of<result::Allocated>(run(allocate("gpu0", 100))).block_id;
  run(free_block("gpu0", first));
  EXPECT_EQ(result_of<result::Moves>(run(defragment("gpu0"))), (result::Moves{{{second, 100, 0, 100}}, false}));
  EXPECT_THAT(result_of<result::Moves>(run(defragment("gpu0"))).moves, IsEmpty());
}

TEST_F(ServiceTest, CheckpointsAreAnsweredWithWhatWasMade) {
  const auto full = result_of<result::Checkpoints>(run(create_checkpoint("run", 10))).checkpoints.at(0);
  EXPECT_EQ(full.state, checkpoint::CheckpointState::Creating);
  EXPECT_EQ(full.created_at, kStart);
  run(complete(full.checkpoint_id));
  const auto delta =
      result_of<result::Checkpoints>(run(create_checkpoint("run", 20, checkpoint::CheckpointType::Incremental)))
          .checkpoints.at(0);
  EXPECT_EQ(delta.parent_id, full.checkpoint_id);
  const auto stored = state().checkpoint.find(delta.checkpoint_id);
  EXPECT_EQ(stored, delta) << "the answer is made from the event, and agrees with the state";
  run(corrupt(delta.checkpoint_id));
  const auto collected = result_of<result::Collected>(run(collect_garbage()));
  ASSERT_THAT(collected.deleted, SizeIs(1));
  EXPECT_EQ(collected.deleted[0].checkpoint_id, delta.checkpoint_id);
  EXPECT_EQ(collected.deleted[0].training_run_id, "run");
  EXPECT_EQ(result_of<result::Done>(run(remove_checkpoint(full.checkpoint_id))), result::Done{});
  EXPECT_EQ(result_of<result::Collected>(run(collect_garbage())), result::Collected{});
}

// ---- if_sequence

TEST_F(ServiceTest, IfSequenceIsAbortedByALaterEventOfTheSameStream) {
  run(register_model("resnet"));  // 2
  run(register_model("bert"));    // 3
  const auto at = [&](const SingleCommand& command, Sequence if_sequence) {
    return run(command, {.if_sequence = if_sequence}).status.code();
  };
  EXPECT_EQ(at(transition("resnet", DeploymentState::Validating), 1), StatusCode::kAborted);
  EXPECT_EQ(at(transition("resnet", DeploymentState::Validating), 2), StatusCode::kOk) << "bert is another stream";
  EXPECT_EQ(at(register_model("gpt"), 0), StatusCode::kOk) << "0: it must not exist";
  EXPECT_EQ(at(register_model("gpt", {2, 0, 0}), 0), StatusCode::kAborted);
  EXPECT_EQ(at(register_model("resnet"), 2), StatusCode::kAborted) << "the lost check goes before the refusal";
  EXPECT_EQ(at(register_model(""), 0), StatusCode::kInvalidArgument) << "arguments go before it";
  EXPECT_EQ(at(transition("nobody", DeploymentState::Validating), 0), StatusCode::kNotFound);
}

TEST_F(ServiceTest, IfSequenceOfACollectionLooksAtTheRunsThatItChanges) {
  const auto made = result_of<result::Checkpoints>(run(create_checkpoint("run", 1))).checkpoints.at(0);
  run(corrupt(made.checkpoint_id));  // 3
  EXPECT_EQ(run(collect_garbage(), {.if_sequence = 2}).status.code(), StatusCode::kAborted);
  EXPECT_EQ(run(collect_garbage(), {.if_sequence = 3}).status.code(), StatusCode::kOk);
}

// ---- batches

TEST_F(ServiceTest, ABatchHappensWhole) {
  const Reply reply = run(Command(batch({register_model("resnet"), transition("resnet", DeploymentState::Validating),
                                         create_pool("gpu0", 100), allocate("gpu0", 60)})),
                          {.number = 5});
  const auto& replies = result_of<result::BatchResult>(reply).replies;
  ASSERT_THAT(replies, SizeIs(4));
  EXPECT_EQ(reply.sequence, 5u);
  EXPECT_EQ(replies[0].sequence, 2u);
  EXPECT_EQ(result_of<result::Transitioned>(replies[1]).to, DeploymentState::Validating);
  EXPECT_EQ(result_of<result::Allocated>(replies[3]).actual_size, 60u);
  const Record last = record(5);
  EXPECT_EQ(last.batch_index, 3u);
  EXPECT_EQ(last.batch_size, 4u);
  EXPECT_EQ(last.part, 3u);
  EXPECT_EQ(last.parts, 4u);
  EXPECT_EQ(run(Command(batch({})), {.number = 5}), reply) << "the answer of a retry";
}

TEST_F(ServiceTest, ABatchThatIsRefusedHalfwayLeavesNoTrace) {
  run(create_pool("gpu0", 1000));
  const std::string block = result_of<result::Allocated>(run(allocate("gpu0", 100))).block_id;
  run(cache("gpu0", block));
  const auto made = result_of<result::Checkpoints>(run(create_checkpoint("run", 1))).checkpoints.at(0);
  const Digest before = state().digest();
  const Sequence sequence = state().sequence;
  const Reply refused =
      run(Command(batch({register_model("resnet"), free_block("gpu0", block), allocate("gpu0", 900),
                         complete(made.checkpoint_id), transition("resnet", DeploymentState::Production)})));
  EXPECT_EQ(refused.status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(message_of(refused), HasSubstr("command 5 of the batch: model \"resnet\" 1.0.0"));
  EXPECT_EQ(state().digest(), before);
  EXPECT_EQ(state().sequence, sequence);
  EXPECT_EQ(replayed().digest(), before);
  EXPECT_EQ(state().gpu_memory.block("gpu0", block)->status, gpu_memory::BlockStatus::Cached);
  const auto next = result_of<result::Allocated>(run(allocate("gpu0", 10))).block_id;
  EXPECT_EQ(replayed().digest(), state().digest()) << "ids too are as if it had never been: " << next;
}

TEST_F(ServiceTest, ABatchThatIsRefusedIsNoChangeOfItsStreams) {
  run(register_model("resnet"));  // 2
  run(create_pool("gpu0", 100));  // 3
  const Batch refused = batch({transition("resnet", DeploymentState::Validating), register_model("bert"),
                               allocate("gpu0", 10), transition("resnet", DeploymentState::Production)});
  EXPECT_EQ(code(Command(refused)), StatusCode::kFailedPrecondition);
  EXPECT_EQ(state().last_of("model/resnet"), 2u);
  EXPECT_EQ(state().last_of("model/bert"), 0u);
  EXPECT_EQ(state().last_of("pool/gpu0"), 3u);
  run(Command(batch({transition("resnet", DeploymentState::Validating), register_model("bert"), allocate("gpu0", 10),
                     transition("resnet", DeploymentState::Staging)})));  // 4 to 7
  EXPECT_EQ(state().last_of("model/resnet"), 7u);
  EXPECT_EQ(state().last_of("model/bert"), 5u);
  EXPECT_EQ(state().last_of("pool/gpu0"), 6u);
  EXPECT_EQ(pages_of(replayed()), pages_of(state()));
}

TEST_F(ServiceTest, AnAllocationThatFailsRefusesItsBatchAndIsNotRecorded) {
  run(create_pool("gpu0", 100));
  const Reply refused = run(Command(batch({allocate("gpu0", 60), allocate("gpu0", 60)})));
  EXPECT_EQ(refused.status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(message_of(refused), HasSubstr("command 2 of the batch"));
  EXPECT_EQ(state().sequence, 2u);
  EXPECT_EQ(state().gpu_memory.live_block_count(), 0u);
}

TEST_F(ServiceTest, IfSequenceInABatchIsAgainstTheStateBeforeIt) {
  run(register_model("resnet"));  // 2
  Batch both =
      batch({transition("resnet", DeploymentState::Validating), transition("resnet", DeploymentState::Staging)});
  both.items[1].if_sequence = 2;
  EXPECT_TRUE(run(Command(both)).status.ok()) << "the first item's own change does not count";
  EXPECT_EQ(code(Command(both)), StatusCode::kFailedPrecondition);
  both = batch({transition("resnet", DeploymentState::Canary)});
  both.items[0].if_sequence = 2;
  EXPECT_EQ(code(Command(both)), StatusCode::kAborted);
}

TEST_F(ServiceTest, SomeCommandsMayNotStandInABatch) {
  run(create_pool("gpu0", 100));
  for (const SingleCommand& barred :
       {evict("gpu0", 1), defragment("gpu0"), collect_garbage(), SingleCommand(AcceptClock{})}) {
    EXPECT_EQ(code(Command(batch({register_model("m"), barred}))), StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(code(Command(batch({}))), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Command(batch(std::vector<SingleCommand>(101, register_model("m"))))), StatusCode::kInvalidArgument);
  EXPECT_EQ(state().sequence, 2u);
}

TEST_F(ServiceTest, ABatchWithANoOpAnswersItFromTheSameRecordsAtARetry) {
  run(create_pool("gpu0", 1000));
  const std::string block = result_of<result::Allocated>(run(allocate("gpu0", 10))).block_id;
  const Command command = batch({register_model("a"), touch("gpu0", block), register_model("b")});
  const Reply first = run(command, {.number = 50});
  EXPECT_EQ(result_of<result::BatchResult>(first).replies.at(1).sequence, 4u);
  EXPECT_EQ(run(command, {.number = 50}), first);
  const Reply nothing = run(Command(batch({touch("gpu0", block)})));
  EXPECT_EQ(nothing.sequence, 5u);
  ASSERT_THAT(result_of<result::BatchResult>(nothing).replies, SizeIs(1));
}

TEST_F(ServiceTest, ABatchWhoseLastCommandIsANoOpIsOfOneLifeOfTheLog) {
  run(create_pool("gpu0", 1000));
  const std::string block = result_of<result::Allocated>(run(allocate("gpu0", 10))).block_id;
  const Command command = batch({register_model("a"), touch("gpu0", block)});
  const Reply first = run(command, {.number = 9});
  EXPECT_EQ(result_of<result::BatchResult>(first).replies.back().incarnation, kIncarnation);
  EXPECT_EQ(run(command, {.number = 9}), first);
}

// ---- sessions

TEST_F(ServiceTest, ARetryIsAnsweredAndNotRunAgain) {
  const Reply first = run(register_model("resnet"), {.number = 3});
  EXPECT_EQ(run(register_model("resnet"), {.number = 3}), first);
  restart();
  EXPECT_EQ(run(register_model("resnet"), {.number = 3}), first);
  EXPECT_EQ(state().sequence, 2u);
}

TEST_F(ServiceTest, ARefusalIsRememberedUntilTheRestart) {
  EXPECT_EQ(run(transition("resnet", DeploymentState::Validating), {.number = 3}).status.code(), StatusCode::kNotFound);
  run(register_model("resnet"), {.number = 4});
  EXPECT_EQ(run(transition("resnet", DeploymentState::Validating), {.number = 3}).status.code(), StatusCode::kNotFound);
  restart();
  EXPECT_EQ(run(transition("resnet", DeploymentState::Validating), {.number = 3}).status.code(), StatusCode::kOk)
      << "the first changed nothing, so it is decided anew";
}

TEST_F(ServiceTest, NumbersHaveRules) {
  run(register_model("a"), {.number = 10, .answered_below = 10});
  EXPECT_EQ(run(register_model("b"), {.number = 9}).status.code(), StatusCode::kFailedPrecondition)
      << "the session said that it has that answer";
  Request zero;
  EXPECT_EQ(service_->execute({}, zero, register_model("c")).reply.status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(run(register_model("c"), {.number = 11, .answered_below = 12}).status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(run(register_model("c"), {.number = 10 + 1024}).status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(run(register_model("c"), {.number = 10 + 1023}).status.code(), StatusCode::kOk);
}

TEST_F(ServiceTest, AForgottenSessionRunsNothing) {
  start({}, {.max_sessions = 2, .max_entries = 100});
  const SessionId a{1}, b{2}, c{3};
  run(register_model("a"), {.number = 1, .session = a, .opened_at = 1});  // 2
  run(register_model("b"), {.number = 1, .session = b, .opened_at = 2});  // 3
  run(register_model("c"), {.number = 1, .session = c, .opened_at = 3});  // a goes
  const Reply late = run(register_model("d"), {.number = 2, .session = a, .opened_at = 1});
  EXPECT_EQ(late.status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(message_of(late), HasSubstr("log history session/01000000000000000000000000000000"));
  EXPECT_EQ(run(register_model("a"), {.number = 1, .session = a, .opened_at = 1}).status.code(),
            StatusCode::kFailedPrecondition)
      << "a retry too: nobody remembers";
  EXPECT_EQ(run(register_model("d"), {.number = 1, .session = SessionId{4}, .opened_at = 4}).status.code(),
            StatusCode::kOk);
}

// ---- what an operator does

TEST_F(ServiceTest, RefusesChangesUnderTheReserveAndHealsByItself) {
  config_.reserve_bytes = 1000;
  start(config_, {});
  service_->on_free_bytes(999);
  const Reply refused = run(register_model("a"), {.number = 1});
  EXPECT_EQ(refused.status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(message_of(refused), HasSubstr("999 bytes are free"));
  EXPECT_FALSE(service_->changes_refused_because().empty());
  EXPECT_TRUE(ask(query::ListModels{}).status.ok()) << "reads go on";
  service_->on_free_bytes(1000);
  EXPECT_TRUE(run(register_model("a"), {.number = 1}).status.ok()) << "the refusal was not remembered";
}

constexpr std::uint64_t kHour = 3'600'000;

TEST_F(ServiceTest, TellsOfASmallStepOfTheClock) {
  step(70'000, 1'000);
  EXPECT_THAT(service_->take_warnings(), ElementsAre(HasSubstr("stepped by 69 s")));
  EXPECT_TRUE(run(register_model("a")).status.ok());
  step(60'000, 1'000);
  EXPECT_THAT(service_->take_warnings(), IsEmpty());
}

TEST_F(ServiceTest, ABigStepForwardRefusesChangesUntilTheClockIsSetBack) {
  step(25 * kHour, 1'000);
  EXPECT_EQ(code(register_model("a")), StatusCode::kFailedPrecondition);
  step(kHour, kHour);
  EXPECT_EQ(code(register_model("a")), StatusCode::kFailedPrecondition) << "time passing does not make it right";
  step(static_cast<std::uint64_t>(-25 * static_cast<std::int64_t>(kHour)), 1'000);
  EXPECT_EQ(code(register_model("a")), StatusCode::kOk);
  EXPECT_THAT(service_->take_warnings(), SizeIs(2));
}

TEST_F(ServiceTest, ABigStepForwardCanBeAccepted) {
  step(25 * kHour, 1'000);
  EXPECT_EQ(run(SingleCommand(AcceptClock{})).sequence, 2u);
  EXPECT_EQ(record(2).event, Event(ServerEvent(ClockAccepted{kStart})));
  EXPECT_EQ(record(2).time, now_.wall_ms);
  EXPECT_TRUE(run(register_model("a")).status.ok());
  EXPECT_EQ(run(SingleCommand(AcceptClock{})).sequence, 3u) << "nothing to accept: no event";
}

TEST_F(ServiceTest, AStartFarInTheFutureOfTheLogRefusesChanges) {
  run(register_model("a"));
  now_.wall_ms += 367 * 24 * kHour;
  restart();
  EXPECT_EQ(code(register_model("b")), StatusCode::kFailedPrecondition);
  EXPECT_THAT(service_->take_warnings(), ElementsAre(HasSubstr("366 days")));
  step(static_cast<std::uint64_t>(-2 * 24 * static_cast<std::int64_t>(kHour)), 1'000);
  EXPECT_EQ(code(register_model("b")), StatusCode::kOk) << "set right";
}

TEST_F(ServiceTest, SlowDriftIsNoStep) {
  for (int i = 0; i < 1000; ++i) step(1'000 + 59'000, 1'000);
  EXPECT_THAT(service_->take_warnings(), IsEmpty());
  EXPECT_TRUE(run(register_model("a")).status.ok());
}

// ---- groups and digests

TEST_F(ServiceTest, CommandsGatherIntoOneGroupUntilItIsTaken) {
  run(register_model("a"));
  run(Command(batch({register_model("b"), register_model("c")})));
  const auto group = service_->take_group();
  ASSERT_TRUE(group);
  EXPECT_EQ(group->first, 2u);
  EXPECT_EQ(group->count(), 3u);
  EXPECT_THAT(group->commands, SizeIs(2));
  EXPECT_EQ(service_->take_group(), std::nullopt);
  write(*group);
}

TEST_F(ServiceTest, CountsWhatIsGatheredInAllGroups) {
  flush();
  EXPECT_EQ(service_->gathered_bytes(), 0u);
  execute(register_model("a"), {.reason = "because"});
  const std::size_t first = service_->gathered_bytes();
  service_->note_digest_at_end();
  execute(register_model("another"), {});
  const std::size_t second = service_->gathered_bytes() - first;
  for (const std::size_t bytes : {first, second}) {
    const auto group = service_->take_group();
    ASSERT_TRUE(group);
    EXPECT_EQ(group->bytes.size() + group->note_bytes, bytes);
    EXPECT_EQ(service_->gathered_bytes(), bytes == first ? second : 0);
  }
}

TEST_F(ServiceTest, DigestsAreNotedAtTheFirstCommandEndBehindAMultiple) {
  // Batches of 100: 1 + 655 * 100 = 65,501, and the next one passes 65,536.
  for (std::uint32_t i = 0; i < 656; ++i) {
    std::vector<SingleCommand> commands;
    for (std::uint32_t j = 0; j < 100; ++j) commands.push_back(register_model("m" + std::to_string(j), {i, 0, 0}));
    ASSERT_TRUE(run(Command(batch(std::move(commands)))).status.ok());
  }
  ASSERT_EQ(state().sequence, 65'601u);
  const service::NotedDigest expected = service::noted_digest(state());
  run(register_model("behind"));
  flush();
  const auto noted = journal_->noted_digest(65'601);
  ASSERT_TRUE(noted.ok() && *noted) << "the group was cut at that command's end";
  EXPECT_EQ(*service::decode_noted_digest(**noted), expected);
  EXPECT_FALSE(service::decode_noted_digest("short").ok());

  run(register_model("last"));
  service_->note_digest_at_end();
  flush();
  EXPECT_EQ(*service::decode_noted_digest(**journal_->noted_digest(65'603)), service::noted_digest(state()));
}

TEST_F(ServiceTest, TheDigestOfAStopIsNotedWhereNothingIsGathered) {
  run(register_model("a"));
  flush();
  const Sequence last = state().sequence;
  ASSERT_EQ(*journal_->noted_digest(last), std::nullopt);
  service_->note_digest_at_end();
  flush();
  const auto noted = journal_->noted_digest(last);
  ASSERT_TRUE(noted.ok() && *noted);
  EXPECT_EQ(*service::decode_noted_digest(**noted), service::noted_digest(state()));
  EXPECT_TRUE(run(register_model("b")).status.ok());
  flush();
  EXPECT_EQ(journal_->durable_head().sequence, last + 1) << "the log goes on behind it";
}

TEST_F(ServiceTest, TheDigestOfAStopIsNotWrittenAloneOnAFullDisk) {
  service_->on_free_bytes(config_.reserve_bytes - 1);
  service_->note_digest_at_end();
  EXPECT_EQ(service_->take_group(), std::nullopt);
}

TEST_F(ServiceTest, ReplayGivesTheStateOfEveryRandomHistory) {
  for (std::uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    start({}, {.max_sessions = 3, .max_entries = 40});
    number_ = 0;
    std::vector<std::string> blocks, checkpoints;
    const auto any = [&](const std::vector<std::string>& ids) {
      return ids.empty() ? std::string("none") : ids[random() % ids.size()];
    };
    const auto single = [&]() -> SingleCommand {
      const std::string model = "m" + std::to_string(random() % 4);
      switch (random() % 14) {
        case 0:
          return register_model(model, {static_cast<std::uint32_t>(random() % 5), 0, 0});
        case 1:
        case 2:
          return transition(model, static_cast<DeploymentState>(random() % 7),
                            {static_cast<std::uint32_t>(random() % 5), 0, 0});
        case 3:
          return create_pool("gpu" + std::to_string(random() % 2), 4096);
        case 4:
        case 5:
        case 6:
          return allocate("gpu" + std::to_string(random() % 2), random() % 900, "t" + std::to_string(random() % 3));
        case 7:
          return cache("gpu0", any(blocks));
        case 8:
          return free_block("gpu" + std::to_string(random() % 2), any(blocks));
        case 9:
          return touch("gpu0", any(blocks));
        case 10:
          return create_checkpoint("run" + std::to_string(random() % 2), random() % 50,
                                   static_cast<checkpoint::CheckpointType>(random() % 3));
        case 11:
          return complete(any(checkpoints));
        case 12:
          return corrupt(any(checkpoints));
        default:
          return remove_checkpoint(any(checkpoints));
      }
    };
    for (int i = 0; i < 300; ++i) {
      tick(random() % 700);
      Command command = single();
      if (random() % 8 == 0) command = batch({single(), single(), single()});
      if (random() % 20 == 0) command = random() % 2 == 0 ? evict("gpu0", random() % 2000) : defragment("gpu0");
      if (random() % 40 == 0) command = collect_garbage();
      Options options;
      options.session = SessionId{static_cast<std::uint8_t>(random() % 5)};
      options.opened_at = state().sequence;
      const Reply reply = run(command, options);
      if (!reply.status.ok()) continue;
      if (const auto* made = std::get_if<result::Allocated>(&reply.result)) blocks.push_back(made->block_id);
      if (const auto* made = std::get_if<result::Checkpoints>(&reply.result)) {
        checkpoints.push_back(made->checkpoints.at(0).checkpoint_id);
      }
    }
    const service::State again = replayed();
    ASSERT_EQ(again.sequence, state().sequence);
    EXPECT_GT(again.sequence, 100u) << "most commands do something";
    EXPECT_EQ(again.digest(), state().digest());
    EXPECT_EQ(again.registry.digest(), state().registry.digest());
    EXPECT_EQ(again.time, state().time);
    EXPECT_EQ(pages_of(again), pages_of(state())) << "streams and all";
    EXPECT_EQ(again.sessions.size(), state().sessions.size());
    EXPECT_EQ(again.sessions.horizon(), state().sessions.horizon());
    EXPECT_EQ(again.sessions.entry_count(), state().sessions.entry_count());
  }
}

}  // namespace
}  // namespace tensorforge::test
