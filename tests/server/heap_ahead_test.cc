#include "server/heap_ahead.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace tensorforge::server {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::size_t kStep = HeapAhead::kStepBytes;
constexpr std::uintptr_t kBegin = 1 << 20;

/// A heap of numbers, that tells what of it was populated.
class FakeHeap {
 public:
  struct Piece {
    std::uintptr_t begin{};
    std::size_t bytes{};
    bool operator==(const Piece&) const = default;
  };

  HeapAhead::Heap heap() {
    return {.end =
                [this] {
                  ++looks_;
                  return end_.load();
                },
            .populate =
                [this](std::uintptr_t begin, std::size_t bytes) {
                  const std::lock_guard lock(mutex_);
                  pieces_.push_back({begin, bytes});
                  return works_.load();
                }};
  }
  void set_end(std::uintptr_t end) { end_ = end; }
  void set_works(bool works) { works_ = works; }
  /// Waits until it was looked at twice from now on: what was to be populated before has been.
  void wait() {
    for (const int target = looks_ + 2; looks_ < target;) std::this_thread::yield();
  }
  std::vector<Piece> pieces() {
    const std::lock_guard lock(mutex_);
    return pieces_;
  }

 private:
  std::atomic<std::uintptr_t> end_{kBegin};
  std::atomic<bool> works_{true};
  std::atomic<int> looks_{};
  std::mutex mutex_;
  std::vector<Piece> pieces_;
};
using Piece = FakeHeap::Piece;

TEST(HeapAhead, PopulatesWhatTheHeapGrewBy) {
  FakeHeap fake;
  const HeapAhead heap(fake.heap());
  fake.wait();
  EXPECT_THAT(fake.pieces(), IsEmpty()) << "it had not grown";
  fake.set_end(kBegin + 2 * kStep + 4'096);
  fake.wait();
  EXPECT_THAT(fake.pieces(),
              ElementsAre(Piece{kBegin, kStep}, Piece{kBegin + kStep, kStep}, Piece{kBegin + 2 * kStep, 4'096}));
}

TEST(HeapAhead, WhatAThreadIsTooLateForIsPopulatedAllTheSame) {
  for (int i = 0; i < 50; ++i) {
    FakeHeap fake;
    const HeapAhead heap(fake.heap());
    fake.set_end(kBegin + kStep);  // most often before its thread has begun
    fake.wait();
    EXPECT_THAT(fake.pieces(), ElementsAre(Piece{kBegin, kStep}));
  }
}

TEST(HeapAhead, GoesOnFromWhereTheHeapShrankTo) {
  FakeHeap fake;
  fake.set_end(kBegin + 8 * kStep);
  const HeapAhead heap(fake.heap());
  fake.set_end(kBegin);
  fake.wait();
  fake.set_end(kBegin + kStep);
  fake.wait();
  EXPECT_THAT(fake.pieces(), ElementsAre(Piece{kBegin, kStep}));
}

TEST(HeapAhead, LeavesWhatCannotBePopulated) {
  FakeHeap fake;
  fake.set_works(false);
  const HeapAhead heap(fake.heap());
  fake.set_end(kBegin + 8 * kStep);
  fake.wait();
  EXPECT_THAT(fake.pieces(), ElementsAre(Piece{kBegin, kStep})) << "it was tried once, and not for each step";
  fake.set_works(true);
  fake.set_end(kBegin + 9 * kStep);
  fake.wait();
  EXPECT_THAT(fake.pieces(), ElementsAre(Piece{kBegin, kStep}, Piece{kBegin + 8 * kStep, kStep}));
}

TEST(HeapAhead, EndsBetweenTwoSteps) {
  FakeHeap fake;
  {
    const HeapAhead heap(fake.heap());
    fake.set_end(kBegin + (std::uintptr_t{1} << 40U));  // more than it will ever do
    while (fake.pieces().empty()) std::this_thread::yield();
  }
  EXPECT_LT(fake.pieces().size(), (std::size_t{1} << 40U) / kStep);
}

/// Of the pages from `begin` on, those that are there.
std::size_t resident_bytes(std::uintptr_t begin, std::size_t bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((bytes + page - 1) / page);
  if (::mincore(reinterpret_cast<void*>(begin), bytes, pages.data()) != 0) return 0;
  return page * static_cast<std::size_t>(std::ranges::count_if(pages, [](auto is) { return (is & 1U) != 0; }));
}

bool kernel_populates() {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  void* memory = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool populated = memory != MAP_FAILED && ::madvise(memory, page, MADV_POPULATE_WRITE) == 0;
  ::munmap(memory, page);
  return populated;
}

TEST(HeapAhead, WhatMallocWillGiveOutIsResidentBeforeItIsTouched) {
  constexpr std::size_t kBlockBytes = 4'096, kMostBlocks = 4 * HeapAhead::kAheadBytes / kBlockBytes;
  if (!kernel_populates()) GTEST_SKIP() << "a kernel without MADV_POPULATE_WRITE";
  const auto end_of_heap = [] { return reinterpret_cast<std::uintptr_t>(::sbrk(0)); };
  const HeapAhead heap;
  const std::uintptr_t before = end_of_heap();
  std::vector<std::unique_ptr<char[]>> blocks;
  while (end_of_heap() == before && blocks.size() < kMostBlocks) {
    blocks.push_back(std::make_unique_for_overwrite<char[]>(kBlockBytes));
  }
  const std::size_t grown = end_of_heap() - before;
  if (grown == 0) GTEST_SKIP() << "this build's malloc() does not use the heap that brk() moves";
  ASSERT_GE(grown, HeapAhead::kAheadBytes);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (resident_bytes(before, grown) < grown && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(resident_bytes(before, grown), grown);
}

}  // namespace
}  // namespace tensorforge::server
