// SPDX-License-Identifier: Apache-2.0
import CLinux
import CNetlink
import CNftables
