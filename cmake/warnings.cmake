# Linked PRIVATE by every target of ours. Whether a warning is an error is a preset's business.
add_library(tensorforge_warnings INTERFACE)
target_compile_options(tensorforge_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
add_library(tensorforge::warnings ALIAS tensorforge_warnings)
