// Several threads at once on what says that it is safe: ThreadSanitizer sees the races, the sums the lost updates.
#include <atomic>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "platform/allocator.h"
#include "platform/queue.h"
#include "platform/security.h"

namespace tensorforge {
namespace {

constexpr int kThreads = 4;

void in_threads(const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

TEST(RollingWindowSchedulerThreads, AdmitExactlyTheLimitTogether) {
  allocator::RollingWindowScheduler scheduler(1'000, 500);
  std::atomic<int> admitted = 0;
  in_threads([&](int) {
    for (std::uint64_t now = 0; now < 900; ++now) admitted += scheduler.admit(now) ? 1 : 0;
  });
  EXPECT_EQ(admitted, 500);
}

TEST(BoundedQueueThreads, LoseAndDoubleNothing) {
  constexpr int kEach = 2'000;
  queue::BoundedQueue<int> queue(16);
  std::atomic<int> popped = 0;
  std::atomic<long> sum = 0;
  in_threads([&](int thread) {
    if (thread % 2 == 0) {
      for (int i = 1; i <= kEach; ++i) {
        while (!queue.try_push(i)) std::this_thread::yield();
      }
      return;
    }
    while (popped < kEach * kThreads / 2) {
      EXPECT_LE(queue.size(), 16u);
      if (const std::optional<int> value = queue.try_pop()) {
        sum += *value;
        ++popped;
      } else {
        std::this_thread::yield();
      }
    }
  });
  EXPECT_EQ(sum, long{kEach} * (kEach + 1) / 2 * kThreads / 2);
  EXPECT_EQ(queue.size(), 0u);
}

TEST(TokenStoreThreads, IssueValidateAndRevokeTogether) {
  security::TokenStore store("key");
  std::vector<std::vector<std::string>> tokens(kThreads);
  in_threads([&](int thread) {
    security::TokenStore::Secret secret{};
    secret[0] = static_cast<std::uint8_t>(thread);
    for (int i = 0; i < 100; ++i) {
      secret[1] = static_cast<std::uint8_t>(i);
      const std::string name = "user-" + std::to_string(thread);
      const std::string token = store.issue(name, {}, 10, secret).value();
      EXPECT_EQ(store.validate(token, 5).value().name, name);
      if (i % 2 == 0) {
        EXPECT_TRUE(store.revoke(token.substr(0, token.find('.'))).ok());
        EXPECT_FALSE(store.validate(token, 5).ok());
      }
      tokens[static_cast<std::size_t>(thread)].push_back(token);
    }
  });
  std::set<std::string> ids;
  int good = 0;
  for (const std::vector<std::string>& of_thread : tokens) {
    for (const std::string& token : of_thread) {
      ids.insert(token.substr(0, token.find('.')));
      good += store.validate(token, 5).ok() ? 1 : 0;
    }
  }
  EXPECT_EQ(ids.size(), 100u * kThreads);
  EXPECT_EQ(good, 50 * kThreads);
}

}  // namespace
}  // namespace tensorforge
