// Lets node's test runner import the page's TypeScript, which has no types of its own to run.
import { register } from 'node:module';

register('./typescript-hooks.mjs', import.meta.url);
