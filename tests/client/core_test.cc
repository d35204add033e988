#include "client/core.h"

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensorforge::client {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr SessionId kSession{0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr const char* kSessionHex = "ab0102030405060708090a0b0c0d0e0f";

Command command_for(const std::string& model_id) {
  return SingleCommand(registry::Command(registry::TransitionState{model_id, {1, 0, 0}, {}}));
}
const std::string& model_of(const Request& request) {
  const auto& single = std::get<SingleCommand>(std::get<Command>(request.body));
  return std::get<registry::TransitionState>(std::get<registry::Command>(single)).model_id;
}

std::vector<ClientMessage> decode_all(codec::FrameReader& reader, const std::string& bytes) {
  reader.append(std::as_bytes(std::span(bytes)));
  std::vector<ClientMessage> messages;
  for (;;) {
    const auto frame = reader.next();
    EXPECT_TRUE(frame.ok()) << frame.status();
    if (!frame.ok() || !frame->has_value()) return messages;
    Result<ClientMessage> message = codec::decode_client_frame(**frame);
    EXPECT_TRUE(message.ok()) << message.status();
    if (message.ok()) messages.push_back(*std::move(message));
  }
}

/// A core on a clock set by hand, and the service's side of its connection, played by the test.
class CoreTest : public testing::Test {
 protected:
  static Core::Options options() {
    Core::Options made;
    made.actor = "ann";
    made.program = "test 1";
    made.request_timeout_ms = 10'000;
    made.first_backoff_ms = 100;
    made.max_backoff_ms = 1'000;
    return made;
  }
  void use(const Core::Options& changed) {
    core_.emplace(changed, kSession, [this] { return random_; });
  }

  Callback keep(const std::string& name) {
    return [this, name](Answer answer) {
      EXPECT_FALSE(answers_.contains(name)) << "a second answer to " << name;
      answers_[name] = std::move(answer);
    };
  }
  void submit(const std::string& name) { core_->submit(command_for(name), {}, keep(name), now_); }
  void ask(const std::string& name) { core_->submit(query::GetModel{name, {}}, keep(name), now_); }

  /// Runs callbacks; returns what the core sent.
  std::vector<ClientMessage> turn() {
    for (Core::Completion& completion : core_->take_completions()) completion.callback(std::move(completion.answer));
    return decode_all(reader_, core_->take_output(now_));
  }
  std::vector<Request> requests() {
    std::vector<Request> sent;
    for (ClientMessage& message : turn()) sent.push_back(std::get<Request>(std::move(message)));
    return sent;
  }

  Hello connect() {
    EXPECT_EQ(core_->take_action(now_), Core::Action::Connect);
    core_->on_connected(now_);
    reader_ = {};
    const std::vector<ClientMessage> sent = turn();
    EXPECT_EQ(sent.size(), 1u);
    return sent.empty() ? Hello{} : std::get<Hello>(sent[0]);
  }
  void receive(const ServerMessage& message) {
    const Result<std::string> frame = codec::encode_server_frame(message);
    ASSERT_TRUE(frame.ok()) << frame.status();
    core_->on_bytes(std::as_bytes(std::span(*frame)), now_);
  }
  void welcome(Sequence sequence = 7, std::uint32_t incarnation = 3) {
    Welcome message;
    message.incarnation = incarnation;
    message.sequence = sequence;
    message.opened_at = 5;
    receive(message);
  }
  void greet() {
    core_->connect();
    connect();
    welcome();
  }
  void reply(std::uint64_t correlation_id, absl::Status status = {}, Sequence sequence = 8) {
    Reply message;
    message.correlation_id = correlation_id;
    message.status = std::move(status);
    message.sequence = sequence;
    message.incarnation = 3;
    receive(message);
  }
  void lose() { core_->on_disconnected(absl::UnavailableError("the cable was cut"), now_); }
  void pass(std::uint64_t ms) {
    now_ += ms;
    core_->on_tick(now_);
  }

  std::uint64_t now_{1'000};
  std::uint64_t random_{};
  std::optional<Core> core_{std::in_place, options(), kSession, [this] { return random_; }};
  codec::FrameReader reader_;
  std::map<std::string, Answer> answers_;
};

TEST_F(CoreTest, GreetsBeforeAnythingElse) {
  submit("a");
  const Hello hello = connect();
  EXPECT_EQ(hello.session, kSession);
  EXPECT_EQ(hello.opened_at, std::nullopt);
  EXPECT_EQ(hello.actor, "ann");
  EXPECT_EQ(hello.client, "test 1");
  EXPECT_EQ(hello.seen_sequence, 0u);
  EXPECT_TRUE(requests().empty());
  welcome();
  EXPECT_EQ(requests().size(), 1u);
  EXPECT_EQ(core_->welcome()->sequence, 7u);
}

TEST_F(CoreTest, StaysUnconnectedWhileThereIsNothingToAsk) {
  EXPECT_EQ(core_->take_action(now_), Core::Action::None);
  EXPECT_EQ(core_->next_tick(), std::numeric_limits<std::uint64_t>::max());
}

TEST_F(CoreTest, NumbersCommandsFromOneAndSaysWhichAreAnswered) {
  greet();
  submit("a");
  ask("q");
  submit("b");
  const std::vector<Request> sent = requests();
  ASSERT_EQ(sent.size(), 3u);
  EXPECT_EQ(sent[0].command_number, 1u);
  EXPECT_EQ(sent[0].answered_below, 1u);
  EXPECT_EQ(sent[1].command_number, 0u);
  EXPECT_EQ(sent[2].command_number, 2u);
  EXPECT_EQ(sent[2].answered_below, 1u);

  reply(sent[2].correlation_id);
  submit("c");
  EXPECT_EQ(requests().at(0).answered_below, 1u);  // 1 is still open
  reply(sent[0].correlation_id);
  submit("d");
  const std::vector<Request> last = requests();
  EXPECT_EQ(last.at(0).command_number, 4u);
  EXPECT_EQ(last.at(0).answered_below, 3u);
}

TEST_F(CoreTest, GivesEachAnswerToWhoAskedInAnyOrder) {
  greet();
  ask("q");
  submit("a");
  const std::vector<Request> sent = requests();
  reply(sent.at(1).correlation_id, absl::NotFoundError("no such model"));
  turn();
  EXPECT_EQ(answers_.at("a").status, absl::NotFoundError("no such model"));
  EXPECT_EQ(answers_.at("a").request_id, std::string(kSessionHex) + "-1");
  EXPECT_FALSE(answers_.contains("q"));
  reply(sent.at(0).correlation_id);
  turn();
  EXPECT_TRUE(answers_.at("q").status.ok());
  EXPECT_EQ(answers_.at("q").reply.sequence, 8u);
  EXPECT_EQ(answers_.at("q").request_id, "");
  EXPECT_EQ(core_->open_requests(), 0u);
}

TEST_F(CoreTest, SendsAgainWithTheSameNumbersAfterALostConnection) {
  greet();
  for (const char* name : {"a", "b", "c"}) submit(name);
  const std::vector<Request> first = requests();
  reply(first.at(0).correlation_id, {}, 41);
  turn();
  lose();
  submit("d");
  EXPECT_EQ(core_->take_action(now_), Core::Action::None);  // not at once
  now_ = core_->next_tick();
  const Hello hello = connect();
  EXPECT_EQ(hello.session, kSession);
  EXPECT_EQ(hello.opened_at, 5u);
  EXPECT_EQ(hello.seen_sequence, 41u);
  EXPECT_EQ(hello.seen_incarnation, 3u);
  welcome(50);
  const std::vector<Request> again = requests();
  ASSERT_EQ(again.size(), 3u);
  for (std::size_t i = 0; i < again.size(); ++i) {
    EXPECT_EQ(again[i].command_number, i + 2);
    EXPECT_EQ(again[i].answered_below, 2u);
  }
  EXPECT_EQ(model_of(again[0]), "b");
  EXPECT_EQ(model_of(again[2]), "d");
}

TEST_F(CoreTest, SendsAgainWhatTheServiceCouldNotDo) {
  greet();
  submit("a");
  const Request first = requests().at(0);
  reply(first.correlation_id, absl::UnavailableError("the disk failed"));
  submit("b");
  EXPECT_TRUE(requests().empty());  // behind the pause, and behind `a`
  EXPECT_TRUE(answers_.empty());
  now_ = core_->next_tick();
  pass(0);
  const std::vector<Request> again = requests();
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[0].correlation_id, first.correlation_id);
  EXPECT_EQ(again[0].command_number, 1u);
  EXPECT_EQ(model_of(again[1]), "b");
  reply(first.correlation_id);
  turn();
  EXPECT_TRUE(answers_.at("a").status.ok());
}

TEST_F(CoreTest, EndsARequestAtItsDeadline) {
  greet();
  submit("a");
  ask("q");
  const std::vector<Request> sent = requests();
  pass(9'999);
  turn();
  EXPECT_TRUE(answers_.empty());
  EXPECT_EQ(core_->next_tick(), now_ + 1);
  pass(1);
  turn();
  EXPECT_EQ(answers_.at("a").status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(answers_.at("a").status.message()), HasSubstr("-1 was carried out is unknown"));
  EXPECT_EQ(answers_.at("q").status.code(), StatusCode::kDeadlineExceeded);
  // A late answer is nobody's, and nobody waits for number 1 any more.
  reply(sent.at(0).correlation_id);
  submit("b");
  EXPECT_EQ(requests().at(0).answered_below, 2u);
}

TEST_F(CoreTest, SaysWhetherARequestWasSent) {
  submit("a");
  EXPECT_EQ(core_->take_action(now_), Core::Action::Connect);
  lose();
  pass(10'000);
  turn();
  EXPECT_EQ(answers_.at("a").status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(answers_.at("a").status.message()), HasSubstr("the cable was cut"));
  EXPECT_THAT(std::string(answers_.at("a").status.message()), HasSubstr("was not sent"));
  EXPECT_EQ(answers_.at("a").request_id, "");
}

TEST_F(CoreTest, GivesUpEarlierWhereNoConnectionComesBack) {
  Core::Options made = options();
  made.request_timeout_ms = 1'000'000;
  made.reconnect_timeout_ms = 3'000;
  use(made);
  greet();
  submit("a");
  requests();
  pass(500'000);  // the service takes long, and that is all right
  lose();
  EXPECT_LE(core_->next_tick(), now_ + 3'000);
  pass(2'999);
  turn();
  EXPECT_TRUE(answers_.empty());
  pass(1);
  turn();
  EXPECT_EQ(answers_.at("a").status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(answers_.at("a").status.message()), HasSubstr("no connection for 3000 ms"));
  EXPECT_THAT(std::string(answers_.at("a").status.message()), HasSubstr("-1 was carried out is unknown"));

  submit("b");
  pass(2'000);
  connect();
  welcome();
  EXPECT_EQ(requests().size(), 1u);
  pass(10'000);
  turn();
  EXPECT_FALSE(answers_.contains("b")) << "the connection is there again";
}

TEST_F(CoreTest, EndsTheSessionWhenTheLogWasRolledBack) {
  greet();
  submit("a");
  requests();
  lose();
  submit("b");
  now_ = core_->next_tick();
  connect();
  reply(0, absl::DataLossError("the log was rolled back"));
  EXPECT_EQ(core_->take_action(now_), Core::Action::Disconnect);
  submit("c");
  turn();
  for (const char* name : {"a", "b", "c"}) EXPECT_EQ(answers_.at(name).status.code(), StatusCode::kDataLoss) << name;
  EXPECT_EQ(answers_.at("a").request_id, std::string(kSessionHex) + "-1");
  now_ += 100'000;
  EXPECT_EQ(core_->take_action(now_), Core::Action::None);
}

TEST_F(CoreTest, TriesAgainWhenTheServiceIsFull) {
  submit("a");
  connect();
  reply(0, absl::ResourceExhaustedError("too many connections"));
  EXPECT_EQ(core_->take_action(now_), Core::Action::Disconnect);
  EXPECT_EQ(core_->take_action(now_), Core::Action::None);
  now_ = core_->next_tick();
  connect();
  welcome();
  EXPECT_EQ(requests().size(), 1u);
}

TEST_F(CoreTest, WaitsLongerAfterEachFailureAndNeverForEver) {
  submit("a");
  std::vector<std::uint64_t> waits;
  for (int i = 0; i < 6; ++i) {
    random_ = static_cast<std::uint64_t>(i % 2) * 1'000'000;  // 50 * 20,000 - 50 is no multiple: some jitter
    EXPECT_EQ(core_->take_action(now_), Core::Action::Connect);
    lose();
    waits.push_back(core_->next_tick() - now_);
    now_ = core_->next_tick();
  }
  std::uint64_t limit = 100;
  for (const std::uint64_t wait : waits) {
    EXPECT_GE(wait, limit / 2);
    EXPECT_LE(wait, limit);
    limit = std::min<std::uint64_t>(limit * 2, 1'000);
  }
}

TEST_F(CoreTest, GivesUpOnAServiceThatDoesNotGreet) {
  submit("a");
  connect();
  EXPECT_EQ(core_->next_tick(), now_ + 5'000);
  pass(5'000);
  EXPECT_EQ(core_->take_action(now_), Core::Action::Disconnect);
  EXPECT_THAT(std::string(core_->last_error().message()), HasSubstr("no welcome"));
}

TEST_F(CoreTest, DropsAConnectionThatSendsNonsense) {
  const struct {
    const char* name;
    std::string bytes;
  } cases[] = {{"a length of 4 GiB", std::string(8, '\xff')},
               {"no FlatBuffer", std::string("\x10\0\0\0", 4) + std::string(16, 'x')}};
  for (const auto& [name, bytes] : cases) {
    SCOPED_TRACE(name);
    use(options());
    greet();
    submit(name);
    ASSERT_EQ(requests().size(), 1u);
    core_->on_bytes(std::as_bytes(std::span(bytes)), now_);
    EXPECT_EQ(core_->take_action(now_), Core::Action::Disconnect);
    now_ = core_->next_tick();
    connect();
    welcome();
    EXPECT_EQ(requests().size(), 1u);
  }
}

TEST_F(CoreTest, TakesAFrameInPieces) {
  greet();
  submit("a");
  Reply message;
  message.correlation_id = requests().at(0).correlation_id;
  const Result<std::string> frame = codec::encode_server_frame(message);
  ASSERT_TRUE(frame.ok());
  for (const char& byte : *frame) core_->on_bytes(std::as_bytes(std::span(&byte, 1)), now_);
  turn();
  EXPECT_TRUE(answers_.at("a").status.ok());
}

TEST_F(CoreTest, LimitsWhatIsInFlightAndWhatWaits) {
  Core::Options limited = options();
  limited.max_in_flight = 2;
  limited.max_waiting = 1;
  use(limited);
  greet();
  submit("a");
  EXPECT_EQ(requests().size(), 1u);
  submit("b");
  const std::vector<Request> second = requests();
  ASSERT_EQ(second.size(), 1u);
  submit("c");
  EXPECT_TRUE(requests().empty());
  submit("d");
  turn();
  EXPECT_EQ(answers_.at("d").status.code(), StatusCode::kResourceExhausted);
  // An answer to `b` alone keeps the window of numbers where it is.
  reply(second[0].correlation_id);
  EXPECT_TRUE(requests().empty());
  reply(second[0].correlation_id - 1);
  EXPECT_EQ(requests().at(0).command_number, 3u);
}

TEST_F(CoreTest, RefusesWhatFitsNoFrame) {
  greet();
  CommandOptions with_reason;
  with_reason.reason = std::string(codec::kMaxFrameBytes, 'x');
  core_->submit(command_for("large"), with_reason, keep("large"), now_);
  submit("small");
  const std::vector<Request> sent = requests();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].command_number, 1u);
  turn();
  EXPECT_EQ(answers_.at("large").status.code(), StatusCode::kInvalidArgument);
}

TEST_F(CoreTest, AnswersEverythingWhenItIsClosed) {
  greet();
  submit("a");
  requests();
  submit("b");
  core_->close();
  EXPECT_EQ(core_->take_action(now_), Core::Action::Disconnect);
  submit("c");
  turn();
  for (const char* name : {"a", "b", "c"}) EXPECT_EQ(answers_.at(name).status.code(), StatusCode::kCancelled) << name;
}

/// A service that remembers each number, over a connection that is cut at random places in both directions.
class UnreliableService {
 public:
  explicit UnreliableService(std::mt19937& random) : random_(random) {}

  void begin() {
    input_ = {};
    output_.clear();
  }
  void receive(std::string bytes) {
    for (const ClientMessage& message : decode_all(input_, bytes)) {
      if (std::holds_alternative<Hello>(message)) {
        send(Welcome{});
      } else {
        answer(std::get<Request>(message));
      }
    }
  }
  std::string take_output() { return std::exchange(output_, {}); }
  const std::vector<std::string>& carried_out() const { return carried_out_; }

 private:
  void answer(const Request& request) {
    Reply reply;
    reply.correlation_id = request.correlation_id;
    EXPECT_LE(request.answered_below, request.command_number);
    EXPECT_GE(request.answered_below, answered_below_) << "took an answer back";
    answered_below_ = request.answered_below;
    if (random_() % 10 == 0) {
      reply.status = absl::UnavailableError("not now");
      // A service whose disk fails may have written the group, or not.
      if (random_() % 2 == 0) carry_out(request);
    } else {
      reply.sequence = carry_out(request);
    }
    send(reply);
  }
  Sequence carry_out(const Request& request) {
    const auto [entry, is_new] = table_.try_emplace(request.command_number, carried_out_.size() + 1);
    if (is_new) carried_out_.push_back(model_of(request));
    EXPECT_EQ(carried_out_[entry->second - 1], model_of(request)) << "one number, two commands";
    return entry->second;
  }
  void send(const ServerMessage& message) { output_ += codec::encode_server_frame(message).value(); }

  std::mt19937& random_;
  codec::FrameReader input_;
  std::string output_;
  std::uint64_t answered_below_{};
  std::map<std::uint64_t, Sequence> table_;
  std::vector<std::string> carried_out_;
};

TEST(CoreProperty, EveryCommandIsCarriedOutOnceThroughAnyLossOfConnections) {
  for (std::uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    UnreliableService service(random);
    Core::Options options;
    options.actor = "ann";
    options.request_timeout_ms = 1'000'000'000;
    options.max_in_flight = 1 + random() % 40;
    Core core(options, kSession, [&] { return random(); });
    std::uint64_t now = 1;
    constexpr std::size_t kCommands = 60;
    std::size_t submitted = 0;
    std::map<std::string, Sequence> answers;

    for (int step = 0; step < 100'000 && answers.size() < kCommands; ++step) {
      if (submitted < kCommands && random() % 2 == 0) {
        const std::string name = "m" + std::to_string(submitted++);
        core.submit(
            command_for(name), {},
            [&answers, name](Answer answer) {
              ASSERT_TRUE(answer.status.ok()) << answer.status;
              ASSERT_TRUE(answers.emplace(name, answer.reply.sequence).second);
            },
            now);
      }
      now += random() % 50;
      core.on_tick(now);
      if (core.take_action(now) == Core::Action::Connect) {
        service.begin();
        core.on_connected(now);
      }
      std::string to_service = core.take_output(now);
      const bool cut = random() % 8 == 0;
      if (cut) to_service.resize(random() % (to_service.size() + 1));
      service.receive(to_service);
      std::string to_client = service.take_output();
      if (cut) to_client.resize(random() % (to_client.size() + 1));
      core.on_bytes(std::as_bytes(std::span(to_client)), now);
      if (cut) core.on_disconnected(absl::UnavailableError("cut"), now);
      for (Core::Completion& completion : core.take_completions()) completion.callback(std::move(completion.answer));
    }

    ASSERT_EQ(answers.size(), kCommands);
    ASSERT_EQ(service.carried_out().size(), kCommands);
    for (const auto& [name, sequence] : answers) EXPECT_EQ(service.carried_out()[sequence - 1], name);
  }
}

}  // namespace
}  // namespace tensorforge::client
