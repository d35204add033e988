#include "server/heap_ahead.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace tensorforge::server {
namespace {

constexpr std::size_t kPageBytes = 4'096, kBlockBytes = 4'096, kMostBlocks = 1'000'000;

std::uintptr_t end_of_heap() { return reinterpret_cast<std::uintptr_t>(::sbrk(0)); }

/// Of whole pages from `begin` on.
std::size_t resident_bytes(std::uintptr_t begin, std::size_t bytes) {
  std::vector<unsigned char> pages(bytes / kPageBytes);
  if (::mincore(reinterpret_cast<void*>(begin), bytes, pages.data()) != 0) return 0;
  return kPageBytes *
         static_cast<std::size_t>(std::ranges::count_if(pages, [](auto page) { return (page & 1U) != 0; }));
}

bool kernel_maps_ahead() {
  void* page = ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool mapped = ::madvise(page, kPageBytes, MADV_POPULATE_WRITE) == 0;
  ::munmap(page, kPageBytes);
  return mapped;
}

TEST(HeapAheadTest, WhatTheHeapGrowsByIsResidentBeforeItIsTouched) {
  if (!kernel_maps_ahead()) GTEST_SKIP() << "a kernel without MADV_POPULATE_WRITE";
  const HeapAhead heap;
  const std::uintptr_t before = end_of_heap();
  std::vector<std::unique_ptr<char[]>> blocks;
  while (end_of_heap() == before && blocks.size() < kMostBlocks) {
    blocks.push_back(std::make_unique_for_overwrite<char[]>(kBlockBytes));
  }
  const std::size_t grown = end_of_heap() - before;
  if (grown == 0) GTEST_SKIP() << "this build's malloc() does not use the heap that brk() moves";
  ASSERT_GE(grown, HeapAhead::kAheadBytes);

  // All but what makes no whole step at the end.
  const std::size_t expected = grown - grown / 16;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  std::size_t resident = 0;
  while ((resident = resident_bytes(before, grown)) < expected && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GE(resident, expected) << "of " << grown << " bytes";
}

TEST(HeapAheadTest, EndsWhileItMaps) {
  for (int i = 0; i < 20; ++i) {
    const HeapAhead heap;
    const std::uintptr_t before = end_of_heap();
    std::vector<std::unique_ptr<char[]>> blocks;
    while (end_of_heap() == before && blocks.size() < 10'000) {
      blocks.push_back(std::make_unique_for_overwrite<char[]>(kBlockBytes));
    }
  }
}

}  // namespace
}  // namespace tensorforge::server
