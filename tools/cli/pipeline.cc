#include "pipeline.h"

namespace tensorforge::cli {

Pipeline::~Pipeline() {
  while (in_flight_ > 0) take();
}

void Pipeline::submit(Command command, client::CommandOptions options, Handler handler) {
  make_room();
  client_.submit(std::move(command), std::move(options), collect(std::move(handler)));
}

void Pipeline::submit(Query query, Handler handler) {
  make_room();
  client_.submit(std::move(query), collect(std::move(handler)));
}

void Pipeline::make_room() {
  wait_until([this] { return in_flight_ < window_; });
}

client::Callback Pipeline::collect(Handler handler) {
  ++in_flight_;
  return [this, handler = std::move(handler)](client::Answer answer) mutable {
    const std::lock_guard lock(mutex_);
    answers_.emplace_back(std::move(handler), std::move(answer));
    arrived_.notify_one();  // under the lock: once it is free, the pipeline may be gone
  };
}

std::pair<Pipeline::Handler, client::Answer> Pipeline::take() {
  std::unique_lock lock(mutex_);
  arrived_.wait(lock, [this] { return !answers_.empty(); });
  auto next = std::move(answers_.front());
  answers_.pop_front();
  --in_flight_;
  return next;
}

void Pipeline::handle_next() {
  auto [handler, answer] = take();
  handler(std::move(answer));
}

}  // namespace tensorforge::cli
