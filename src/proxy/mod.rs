//! One connection: from accept to the last byte of the response.
