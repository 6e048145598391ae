// SPDX-License-Identifier: Apache-2.0
// The package exists for its dependencies; a target must have a source.
