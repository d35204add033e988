#include "bench_load.h"

#include <algorithm>
#include <array>
#include <utility>
#include <variant>

#include <fmt/format.h>

#include "client/client.h"
#include "program.h"

namespace tensorforge::cli::bench {
namespace {

constexpr std::size_t kBlocksHeld = 64;  // by one connection

/// Of an answer that is not what it should be: why the service refused, or `else_what`.
absl::Status problem_in(std::span<const std::byte> frame, std::string_view else_what) {
  const Result<ServerMessage> message = codec::decode_server_frame(frame);
  if (!message.ok()) return message.status();
  const auto* reply = std::get_if<Reply>(&*message);
  return reply == nullptr || reply->status.ok() ? absl::InternalError(std::string(else_what)) : reply->status;
}

}  // namespace

Load::Load(Run& run, std::size_t number, Share share)
    : run_(run),
      number_(number),
      asked_(run.plan.depth),
      blocks_(std::move(share.blocks)),
      blocks_held_(std::max(kBlocksHeld, blocks_.size())),
      steps_(share.steps),
      connection_(run.io, *this) {
  ++run_.connections;
}

void Load::start(const std::string& service, const std::vector<asio::ip::tcp::endpoint>& endpoints,
                 const std::string& actor) {
  last_frame_ = SteadyClock::now();
  const Result<SessionId> session = client::new_session();
  if (!session.ok()) throw refusal(session.status());
  Hello hello;
  hello.session = *session;
  hello.actor = actor;
  hello.client = "tensorforge-bench/" TENSORFORGE_VERSION;
  connection_.connect(service, endpoints, hello);
}

void Load::look(SteadyClock::time_point now) {
  const std::chrono::seconds timeout(run_.plan.timeout_s);
  if (now - last_frame_ < timeout) return;
  on_lost(absl::DeadlineExceededError(fmt::format("a connection was silent for {} s", timeout.count())));
}

void Load::on_lost(const absl::Status& why) {
  if (done_) return;
  connection_.close();
  if (run_.lost_connections++ == 0) run_.first_loss = why;
  run_.note_errors(std::max<std::uint64_t>(in_flight(), 1), why);
  finish();
}

void Load::on_frame(std::span<const std::byte> frame, LoadConnection::Time arrived) {
  last_frame_ = arrived;
  if (!greeted_) {
    on_welcome(frame);
    for (std::uint64_t i = 0; i < run_.plan.depth && !done_; ++i) next(arrived);
    return;
  }
  if (done_) return;  // nobody asked
  Asked& asked = asked_[answered_++ % asked_.size()];
  if (asked.is_command) ++answered_commands_;
  const std::chrono::duration<float, std::micro> took = arrived - asked.started;
  ++run_.operations;
  run_.last_answer = arrived;
  run_.latencies_us.push_back(took.count());
  if (!(asked.check ? is_good(asked, frame) : names_version(asked, frame))) {
    run_.note_errors(1, problem_in(frame, "an answer that does not belong to its request"));
  }
  next(arrived);
}

void Load::on_welcome(std::span<const std::byte> frame) {
  const Result<ServerMessage> message = codec::decode_server_frame(frame);
  greeted_ = message.ok() && std::holds_alternative<Welcome>(*message);
  if (!greeted_) on_lost(problem_in(frame, "the service did not answer the hello"));
}

void Load::finish() {
  done_ = true;
  --run_.connections;
}

void Load::next(LoadConnection::Time now) {
  if (now >= run_.end) {
    if (in_flight() == 0 && !done_) finish();
    return;
  }
  Operation operation = run_.plan.operation;
  if (operation == Operation::Mixed) {  // half of them read
    constexpr std::array kChoices{Operation::Get,      Operation::Get,   Operation::Get,   Operation::Get,
                                  Operation::Register, Operation::Alloc, Operation::Alloc, Operation::Checkpoint};
    operation = kChoices[run_.below(kChoices.size())];
  }
  switch (operation) {
    case Operation::Register:
      return register_model(now);
    case Operation::Get:
      return get(now);
    case Operation::Alloc:
      return blocks_.size() >= blocks_held_ || (!blocks_.empty() && run_.below(2) == 0) ? free_block(now) : alloc(now);
    case Operation::Checkpoint:
      return begun_.empty() ? begin_checkpoint(now) : complete_checkpoint(now);
    case Operation::Mixed:
      break;
  }
}

void Load::register_model(LoadConnection::Time now) {
  const Run::NextVersion next = run_.next_version();
  Asked& asked = ask(now, true);
  asked.own_id = next.id();
  asked.model_id = asked.own_id;
  asked.version = next.version;
  send(asked, run_.registration(next.row));
}

void Load::get(LoadConnection::Time now) {
  const auto& [model_id, version] = run_.next_to_read();
  Asked& asked = ask(now, false);
  asked.model_id = model_id;
  asked.version = version;
  send(asked, run_.get(model_id.size()));
}

void Load::alloc(LoadConnection::Time now) {
  gpu_memory::Allocate command = run_.next_block(number_);
  const std::size_t size = command.request.size;
  send_command(now, gpu_memory::Command(std::move(command)), [this, size](const Reply& reply) {
    const auto* allocated = std::get_if<result::Allocated>(&reply.result);
    if (allocated == nullptr || allocated->actual_size < size || allocated->offset % 256 != 0) return false;
    blocks_.push_back(allocated->block_id);
    return true;
  });
}

void Load::free_block(LoadConnection::Time now) {
  std::swap(blocks_[run_.below(blocks_.size())], blocks_.back());
  gpu_memory::FreeBlock command{run_.device(number_), std::move(blocks_.back())};
  blocks_.pop_back();
  send_command(now, gpu_memory::Command(std::move(command)),
               [](const Reply& reply) { return std::holds_alternative<result::Done>(reply.result); });
}

void Load::begin_checkpoint(LoadConnection::Time now) {
  const std::uint64_t step = ++steps_;
  send_command(now, checkpoint::Command(run_.next_checkpoint(number_, step)), [this, step](const Reply& reply) {
    const auto* created = std::get_if<result::Checkpoints>(&reply.result);
    if (created == nullptr || created->checkpoints.size() != 1 || created->checkpoints[0].step != step) return false;
    begun_.push_back(created->checkpoints[0].checkpoint_id);
    return true;
  });
}

void Load::complete_checkpoint(LoadConnection::Time now) {
  checkpoint::CompleteCheckpoint command = Run::completion_of(std::move(begun_.back()));
  begun_.pop_back();
  send_command(now, checkpoint::Command(std::move(command)), [](const Reply&) { return true; });
}

Load::Asked& Load::ask(LoadConnection::Time now, bool is_command) {
  Asked& asked = asked_[sent_++ % asked_.size()];
  asked.started = now;
  asked.is_command = is_command;
  asked.check = nullptr;
  if (is_command) ++sent_commands_;
  return asked;
}

void Load::send(Asked& asked, codec::VersionRequestFrame& frame) {
  frame.set_version(asked.model_id, asked.version);
  frame.set_numbers(sent_, sent_commands_, answered_commands_ + 1);
  connection_.output().append(frame.bytes());
}

void Load::send_command(LoadConnection::Time now, SingleCommand command, std::function<bool(const Reply&)> check) {
  Asked& asked = ask(now, true);
  asked.check = std::move(check);
  Request request;
  request.correlation_id = sent_;
  request.command_number = sent_commands_;
  request.answered_below = answered_commands_ + 1;
  request.body = Command(std::move(command));
  const absl::Status encoded = codec::append_client_frame(request, connection_.output());
  if (!encoded.ok()) throw refusal(encoded);
}

bool Load::names_version(const Asked& asked, std::span<const std::byte> frame) const {
  const auto reply = codec::view_reply(frame);
  if (!reply.ok() || !*reply) return false;
  const codec::ReplyView& view = **reply;
  return view.correlation_id == answered_ && view.code == absl::StatusCode::kOk && view.version &&
         view.version->model_id == asked.model_id && view.version->version == asked.version;
}

bool Load::is_good(const Asked& asked, std::span<const std::byte> frame) const {
  const Result<ServerMessage> message = codec::decode_server_frame(frame);
  if (!message.ok()) return false;
  const auto* reply = std::get_if<Reply>(&*message);
  return reply != nullptr && reply->correlation_id == answered_ && reply->status.ok() && asked.check(*reply);
}

}  // namespace tensorforge::cli::bench
